import http.client
import json
import os

from promptflow.core import tool


@tool
def ask(first: str, second: str, third: str) -> dict:
    connection = http.client.HTTPConnection(os.environ["BENCH_SERVICE"], timeout=60)
    try:
        connection.request("GET", "/")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
