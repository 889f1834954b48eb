from promptflow.connections import CustomConnection
from promptflow.core import AzureOpenAIModelConfiguration, OpenAIModelConfiguration


class Uses:
    def __init__(self, box: CustomConnection, azure: AzureOpenAIModelConfiguration, open: OpenAIModelConfiguration):
        self.shown = [box.endpoint, box.token, azure.azure_endpoint, azure.api_key, azure.azure_deployment, open.base_url, open.model, open.connection]

    def __call__(self, n: int = 0):
        return self.shown[n]
