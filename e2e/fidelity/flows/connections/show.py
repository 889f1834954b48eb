from typing import Union

from promptflow.connections import AzureOpenAIConnection, CustomConnection, OpenAIConnection, SerpConnection
from promptflow.core import tool


@tool
def show(custom: CustomConnection, openai: OpenAIConnection, azure: AzureOpenAIConnection, either: Union[AzureOpenAIConnection, OpenAIConnection], serp: SerpConnection, untyped):
    print("the token is", custom.token, "and the key", openai.api_key)
    return {
        "custom": [custom.region, custom["retries"], custom.token == custom["token"], sorted(custom.configs), sorted(custom.secrets), custom.name, type(custom).__name__],
        "openai": [openai.organization, openai.base_url.endswith("/v1"), len(openai.api_key) > 3, openai.name],
        "azure": [azure.api_type, azure.api_version, azure.auth_mode, azure.name],
        "either": type(either).__name__, "serp": len(serp.api_key) > 3, "untyped": untyped,
        "dict": sorted(dict(custom)),
    }
