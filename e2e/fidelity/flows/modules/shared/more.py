SIGN = "!"
