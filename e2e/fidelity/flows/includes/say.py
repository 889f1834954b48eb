raise ValueError("the included file is to replace this one")
