import asyncio
import json
import os

from promptflow.core import tool


@tool
async def ask(first: str, second: str, third: str) -> dict:
    host, port = os.environ["BENCH_SERVICE"].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    return json.loads(answer.partition(b"\r\n\r\n")[2])
