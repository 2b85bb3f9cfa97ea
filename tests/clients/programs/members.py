"""The members of the request types of the installed OpenAI and Anthropic packages.

Prints one JSON object: for each way of asking its members; a member that lies deeper as a path.
"""

import json

from anthropic.types import (
    document_block_param,
    message_create_params,
    text_block_param,
    tool_param,
    tool_result_block_param,
)
from anthropic.types.beta import message_create_params as beta_message_create_params
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import (
    chat_completion_assistant_message_param,
    chat_completion_content_part_image_param,
    chat_completion_content_part_text_param,
    chat_completion_stream_options_param,
    chat_completion_tool_message_param,
    chat_completion_user_message_param,
    completion_create_params as chat_create_params,
)
from openai.types.responses import (
    easy_input_message_param,
    function_tool_param,
    response_create_params,
    response_format_text_json_schema_config_param,
    response_function_tool_call_param,
    response_input_param,
    response_text_config_param,
)
from openai.types.shared_params import function_definition, reasoning, response_format_json_schema


def members(*types):
    """A TypedDict has the members of those that it is made from as well."""
    names = set()
    for of in types:
        names |= set(of.__annotations__)
        for base in getattr(of, "__orig_bases__", ()):
            if hasattr(base, "__annotations__"):
                names |= members(base)
    return names


def create(module, name):
    """Whole and streamed requests are two types in most modules."""
    found = [getattr(module, name + way, None) for way in ("", "NonStreaming", "Streaming")]
    return members(*[of for of in found if isinstance(of, type)])


def below(path, of):
    return {f"{path}.{name}" for name in members(of)}


# These are sent as headers.
HEADERS = {"betas", "user_profile_id", "workspace_id"}

ways = {
    "chat": create(chat_create_params, "CompletionCreateParams")
    | below("messages.0", chat_completion_user_message_param.ChatCompletionUserMessageParam)
    | below(
        "messages.1", chat_completion_assistant_message_param.ChatCompletionAssistantMessageParam
    )
    | below("messages.2", chat_completion_tool_message_param.ChatCompletionToolMessageParam)
    | below(
        "messages.0.content.0",
        chat_completion_content_part_text_param.ChatCompletionContentPartTextParam,
    )
    | below(
        "messages.0.content.1",
        chat_completion_content_part_image_param.ChatCompletionContentPartImageParam,
    )
    | below("messages.0.content.1.image_url", chat_completion_content_part_image_param.ImageURL)
    | below("stream_options", chat_completion_stream_options_param.ChatCompletionStreamOptionsParam)
    | below("tools.0.function", function_definition.FunctionDefinition)
    | below("response_format.json_schema", response_format_json_schema.JSONSchema),
    "responses": create(response_create_params, "ResponseCreateParams")
    | below("input.0", easy_input_message_param.EasyInputMessageParam)
    | below("input.1", response_function_tool_call_param.ResponseFunctionToolCallParam)
    | below("input.2", response_input_param.FunctionCallOutput)
    | below("reasoning", reasoning.Reasoning)
    | below("text", response_text_config_param.ResponseTextConfigParam)
    | below(
        "text.format",
        response_format_text_json_schema_config_param.ResponseFormatTextJSONSchemaConfigParam,
    )
    | below("tools.0", function_tool_param.FunctionToolParam),
    "completions": create(completion_create_params, "CompletionCreateParams"),
    "embeddings": create(embedding_create_params, "EmbeddingCreateParams"),
    "messages": (
        create(message_create_params, "MessageCreateParams")
        | create(beta_message_create_params, "MessageCreateParams")
        | below("tools.0", tool_param.ToolParam)
        | below("messages.0.content.0", text_block_param.TextBlockParam)
        | below("messages.0.content.1", document_block_param.DocumentBlockParam)
        | below("messages.2.content.0", tool_result_block_param.ToolResultBlockParam)
    )
    - HEADERS,
}

print(json.dumps({way: sorted(names) for way, names in ways.items()}))
