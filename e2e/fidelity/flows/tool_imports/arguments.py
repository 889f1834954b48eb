from promptflow._core.tool import InputSetting
from promptflow.core import tool


@tool(name="A tool", description="with arguments", type="python", input_settings={"x": InputSetting(x=1)}, icon="none")
def arguments(x: int):
    return x
