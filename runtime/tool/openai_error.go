package tool

import (
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// wrapped is promptflow-tools' WrappedOpenAIError: the codes end with the class of OpenAI's exception.
func wrapped(f *apiFailure, prefix string) *api.Error {
	message := prefix + "OpenAI API hits " + f.class + ": " + explain(f.text)
	if f.mend != "" {
		message += " " + f.mend
	}
	return api.NewError([]string{api.UserError, "OpenAIError", f.class}, targetTool, "%s", message)
}

// explain is to_openai_error_message without its beginning: some errors of endpoints get a longer explanation.
func explain(text string) string {
	has := func(part string) bool { return strings.Contains(text, part) }
	switch {
	case text == "<empty message>":
		return "The api key is invalid or revoked. You can correct or regenerate the api key of your connection."
	case has("Unrecognized request argument supplied: functions"):
		return functionsUnsupported
	case has("The completion operation does not work with the specified model"),
		has("parameters are not available") && (has("best_of") || has("echo") || has("logprobs")):
		return completionUnsupported
	case has("Invalid content type. image_url is only supported by certain models"):
		return imageUnsupported
	case has("'response_format' of type") && has("is not supported with this model."),
		has("Additional properties are not allowed") && has("unexpected) - 'response_format'"):
		return responseFormatUnsupported
	case has("Principal does not have access to API/Operation"):
		return principalRefused
	case has("messages with role 'tool' must be a response"),
		has("'tool_calls' must be followed by tool messages responding to each 'tool_call_id'"):
		return toolMessagesMissing + ". Original error: " + text
	default:
		return text + " [Error reference: https://platform.openai.com/docs/guides/error-codes/api-errors]"
	}
}

const (
	functionsUnsupported = "Current model does not support the `functions` parameter. If you are using openai connection, then " +
		"please use gpt-3.5-turbo, gpt-4, gpt-4-32k, gpt-3.5-turbo-0613 or gpt-4-0613. You can refer to " +
		"https://platform.openai.com/docs/guides/gpt/function-calling. If you are using azure openai " +
		"connection, then please first go to your Azure OpenAI resource, deploy model 'gpt-35-turbo' or " +
		"'gpt-4' with version 0613, then go to prompt flow connection page, upgrade connection api version to " +
		"'2023-07-01-preview'. You can refer to " +
		"https://learn.microsoft.com/en-us/azure/ai-services/openai/how-to/function-calling."
	completionUnsupported = "The completion operation does not work with the current model. " +
		"Completion API is a legacy api and is going to be deprecated soon. " +
		"Please change to use Chat API for current model. " +
		"You could refer to guideline at https://aka.ms/pfdoc/chat-prompt " +
		"or view the samples in our gallery that contain 'Chat' in the name."
	imageUnsupported = "Current model does not support the image input. If you are using openai connection, then please use " +
		"gpt-4-vision-preview. You can refer to https://platform.openai.com/docs/guides/vision." +
		"If you are using azure openai connection, then please first go to your Azure OpenAI resource, " +
		"create a GPT-4 Turbo with Vision deployment by selecting model name: \"gpt-4\" and " +
		"model version \"vision-preview\". You can refer to " +
		"https://learn.microsoft.com/en-us/azure/ai-services/openai/how-to/gpt-with-vision"
	responseFormatUnsupported = "The response_format parameter needs to be a dictionary such as {\"type\": \"text\"}. " +
		"The value associated with the type key should be either 'text' or 'json_object' " +
		"If you are using openai connection, you can only set response_format to { \"type\": \"json_object\" } " +
		"when calling gpt-3.5-turbo-1106 or gpt-4-1106-preview to enable JSON mode. You can refer to " +
		"https://platform.openai.com/docs/guides/text-generation/json-mode. If you are using azure openai " +
		"connection, then please first go to your Azure OpenAI resource, deploy model 'gpt-35-turbo-1106' or " +
		"'gpt-4-1106-preview'. You can refer to " +
		"https://learn.microsoft.com/en-us/azure/ai-services/openai/how-to/json-mode?tabs=python."
	principalRefused = "Principal does not have access to API/Operation. If you are using azure openai connection, " +
		"please make sure you have proper role assignment on your azure openai resource. You can refer to " +
		"https://learn.microsoft.com/en-us/azure/ai-services/openai/how-to/role-based-access-control"
	toolMessagesMissing = "Please make sure your chat prompt includes 'tool_calls' within the 'assistant' role. Also, the assistant " +
		"message must be followed by messages with role 'tool', matching ids of assistant message 'tool_calls' " +
		"property. You could refer to guideline at https://aka.ms/pfdoc/chat-prompt"
)
