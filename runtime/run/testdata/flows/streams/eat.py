from promptflow.core import tool


@tool
def eat(food):
    return "|".join(str(x) for x in food)
