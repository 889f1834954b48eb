thing = 5
