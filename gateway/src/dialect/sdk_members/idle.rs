//! Members that may make no difference, each with the reason why that is no loss.

const ALL: &[&str] = &[
    "openai",
    "azure",
    "ernie",
    "ernie_v1",
    "anthropic",
    "gemini",
];

/// Those with a protocol of their own.
const OTHERS: &[&str] = &["ernie_v1", "anthropic", "gemini"];

const BUT_ANTHROPIC: &[&str] = &["openai", "azure", "ernie", "ernie_v1", "gemini"];

const MARK: &str = "a mark for Anthropic's cache: a hint about cost";

/// Members that may make no difference: way of asking, member, kinds, and why that is no loss.
pub(super) const IDLE: &[(&str, &str, &[&str], &str)] = &[
    ("*", "model", ALL, "each provider has its own name for it"),
    (
        "*",
        "stream_options",
        ALL,
        "the hub asks for the usage of every stream and tells it to whoever asks",
    ),
    ("*", "stream_options.include_usage", ALL, "as above"),
    ("*", "prompt_cache_key", OTHERS, "a hint about cost"),
    ("*", "prompt_cache_retention", OTHERS, "a hint about cost"),
    ("*", "prompt_cache_options", OTHERS, "a hint about cost"),
    (
        "*",
        "user",
        &["gemini"],
        "the hub records it; there is nowhere to say it",
    ),
    (
        "*",
        "metadata",
        &["gemini"],
        "of Anthropic's it is the user",
    ),
    (
        "*",
        "safety_identifier",
        &["gemini", "ernie_v1"],
        "as the user",
    ),
    (
        "*",
        "parallel_tool_calls",
        &["ernie_v1"],
        "an answer has one call at most",
    ),
    (
        "*",
        "service_tier",
        &["gemini", "ernie_v1"],
        "`default`: there is one tier",
    ),
    (
        "chat",
        "response_format.json_schema.name",
        &["anthropic", "gemini"],
        "a name for the reader",
    ),
    (
        "chat",
        "response_format.json_schema.strict",
        &["anthropic", "gemini"],
        "they keep to every schema",
    ),
    (
        "responses",
        "store",
        ALL,
        "told back; every exchange is recorded",
    ),
    ("responses", "metadata", ALL, "told back"),
    (
        "responses",
        "include",
        ALL,
        "what must come back stands in the items anyway",
    ),
    (
        "messages",
        "tool_choice",
        &["ernie_v1"],
        "one call at a time is all that there is",
    ),
    ("messages", "cache_control", BUT_ANTHROPIC, MARK),
    ("messages", "tools.0.cache_control", BUT_ANTHROPIC, MARK),
    (
        "messages",
        "messages.0.content.0.cache_control",
        BUT_ANTHROPIC,
        MARK,
    ),
    (
        "messages",
        "messages.0.content.1.cache_control",
        BUT_ANTHROPIC,
        MARK,
    ),
    (
        "messages",
        "messages.2.content.0.cache_control",
        BUT_ANTHROPIC,
        MARK,
    ),
    (
        "responses",
        "input.1.id",
        ALL,
        "of the item, not of what it says",
    ),
    (
        "responses",
        "input.2.id",
        ALL,
        "of the item, not of what it says",
    ),
    (
        "responses",
        "input.1.status",
        ALL,
        "a call with its result is whole",
    ),
    (
        "responses",
        "input.2.status",
        ALL,
        "a call with its result is whole",
    ),
    (
        "responses",
        "text.format.name",
        &["anthropic", "gemini"],
        "a name for the reader",
    ),
    (
        "responses",
        "text.format.strict",
        &["anthropic", "gemini"],
        "they keep to every schema",
    ),
    (
        "embeddings",
        "encoding_format",
        &["gemini"],
        "the hub writes the answer's vectors in that form itself",
    ),
    (
        "messages",
        "messages.0.content.1.title",
        &["gemini"],
        "there is nowhere to say the name of a file",
    ),
];
