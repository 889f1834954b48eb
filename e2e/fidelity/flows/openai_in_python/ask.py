from openai import OpenAI
from promptflow.connections import OpenAIConnection
from promptflow.core import tool


@tool
def ask(connection: OpenAIConnection, q: str):
    client = OpenAI(api_key=connection.api_key, base_url=connection.base_url)
    return client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": q}]).choices[0].message.content
