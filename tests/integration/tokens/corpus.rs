//! Texts and chats to count: a list of hard cases, and mixtures of their parts by a seed.

use nexus_tests::seed::Seed;
use serde_json::{Value, json};

/// Number of mixtures.
const MIXTURES: usize = 300;

/// What mixtures are made of: words, blanks, marks, signs of many scripts.
const PIECES: &[&str] = &[
    "the",
    "The",
    "HTTPServer",
    "iPhone",
    "naïve",
    "don't",
    "I'LL",
    "we've",
    "'S",
    "l'été",
    "Straße",
    "网关",
    "你好，世界",
    "。",
    "、",
    "《论语》",
    "「こんにちは」",
    "カタカナ",
    "안녕하세요",
    "ｆｕｌｌ",
    "　",
    "“引号”",
    "……",
    "——",
    "Привет",
    "γειά",
    "שלום",
    "مرحبا",
    "हिन्दी",
    "ภาษาไทย",
    "e\u{301}",
    "a\u{308}\u{323}",
    "\u{200d}",
    "\u{feff}",
    "🦀",
    "👩‍👩‍👧‍👦",
    "🇨🇳",
    "✨️",
    "𠜎",
    "ﷺ",
    " ",
    "  ",
    "       ",
    "\t",
    "\n",
    "\r\n",
    "\n\n\n",
    " \n ",
    "\u{a0}",
    "\u{85}",
    "\u{2028}",
    "0",
    "12",
    "1234567",
    "3.14159",
    "１２３",
    "Ⅷ",
    "½",
    "²",
    "=",
    "==",
    "!==",
    "//",
    "/*",
    "{\"a\":[1]}",
    "</div>",
    "#include",
    "_",
    "__init__",
    "a_b",
    "$x",
    "&&",
    "\\n",
    "\"",
    "'",
    "`",
    "<|endoftext|>",
    "<|im_start|>",
    "<|fim_prefix|>",
    "<|",
    "|>",
    "https://例子.cn/路径?q=1&r=2",
    "user@example.com",
    "C:\\dir",
    "0xFF",
    "1e-9",
    "\0",
    "\u{7f}",
];

const HARD: &[&str] = &[
    "",
    " ",
    "hello world",
    "你好，世界！这是一个用来测试计数的句子。",
    "把 NATS JetStream 的 3 个副本都打开，然后 restart gateway（务必）。",
    "中English混排，标点“全角”与 half-width 都有；数字１２３和123。",
    "It's 5 o'clock; they'll've gone, y'all'd've known. CAN'T WON'T",
    "def f(x: int) -> int:\n    \"\"\"两倍。\"\"\"\n    return x * 2  # 注释\n\n\nprint(f(21))\n",
    "fn main() {\n\tlet v: Vec<&str> = vec![\"a\", \"b\"];\n\tprintln!(\"{v:?}\");\n}\n",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"<|endoftext|>\"}]}",
    "<|endoftext|><|im_start|>system<|im_end|><|endofprompt|>",
    "🦀🦀🦀 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ☕️",
    "e\u{301}e\u{301} ﬁ ǅ ʰ ゙か゚ Z\u{351}\u{36b}\u{343}",
    "日本語の文章です。「引用」、そして…終わり。",
    "한국어 문장입니다. 띄어쓰기를 합니다.",
    "Ελληνικά και Кириллица и עברית و العربية",
    "   leading and trailing   ",
    "tabs\t\tand\u{a0}no-break\u{3000}全角　空格",
    "line\r\nline\rline\n\n\n\nline   \n   line",
    "12345678901234567890 1,234,567.89 2026-11-28T23:59:59.999Z",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "!?!?!?....,,,;;;:::---___***///\\\\\\|||",
    "supercalifragilisticexpialidocious Donaudampfschifffahrtsgesellschaft",
];

/// The hard cases, long runs, and the mixtures.
pub(super) fn texts(seed: &mut Seed) -> Vec<String> {
    let mut texts: Vec<String> = HARD.iter().map(|&text| text.to_owned()).collect();
    for (unit, times) in [
        (" ", 1),
        (" ", 83),
        (" ", 2_000),
        ("\n", 700),
        ("\t ", 300),
        ("　", 500),
        ("=", 900),
        ("啊", 400),
        ("🦀", 200),
        ("0", 333),
    ] {
        texts.push(unit.repeat(times));
        texts.push(format!("x{}y", unit.repeat(times)));
    }
    texts.extend((0..MIXTURES).map(|_| mixture(seed)));
    // Longer than what is cut into tokens at once.
    texts.push(HARD.join("\n").repeat(120));
    texts.push("没有空格的长文，全是汉字和标点。".repeat(3_000));
    texts
}

fn mixture(seed: &mut Seed) -> String {
    let length = 1 + seed.index(60);
    let mut text = String::new();
    for _ in 0..length {
        text.push_str(PIECES[seed.index(PIECES.len())]);
        if seed.one_in(2) {
            text.push(' ');
        }
    }
    text
}

/// Whole requests of those texts: roles, names, tools.
pub(super) fn chats(texts: &[String], seed: &mut Seed) -> Vec<Value> {
    let short: Vec<&String> = texts.iter().filter(|text| text.len() < 4_000).collect();
    let chats = (0..60).map(|number| {
        let mut text = || short[seed.index(short.len())].clone();
        let mut messages = vec![
            json!({"role": "system", "content": text()}),
            json!({"role": "user", "name": "张三", "content": text()}),
            json!({"role": "assistant", "content": text()}),
            json!({"role": "user", "content": text()}),
        ];
        messages.truncate(1 + number % 4);
        let tools: Vec<Value> = (0..number % 3)
            .map(|tool| function(tool, &mut text))
            .collect();
        let mut chat = json!({"model": "m", "messages": messages});
        if !tools.is_empty() {
            chat["tools"] = tools.into();
        }
        chat
    });
    chats.collect()
}

fn function(number: usize, text: &mut impl FnMut() -> String) -> Value {
    json!({"type": "function", "function": {
        "name": format!("get_天气_{number}"),
        "description": format!("{}.", text()),
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string", "description": "城市，例如 Berlin。"},
            "unit": {"type": "string", "description": text(), "enum": ["celsius", "华氏"]},
            "days": {"type": "integer", "description": ""},
        }},
    }})
}
