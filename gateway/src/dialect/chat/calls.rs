//! A chat stream in an order in which one thing is said after the other.
//!
//! Chat may go on with any tool call at any time: a provider may send pieces of call 0, of call 1,
//! and of call 0 again, or text in between. In dialects of blocks and items one is open at a time,
//! and clients put together what comes between its begin and its end. So a call that is under way
//! holds everything else back until it is whole: until its arguments are a whole object, or until
//! the answer ends. Providers that say one call after the other are not held back at all.
//!
//! What is held back is a part of the answer, so the bound of the answer bounds it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    mem,
};

use super::{
    super::keepsake,
    answer::{Call, Said, Thinking},
};

/// Something to be said to the client.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::dialect) enum Piece<'a> {
    Reasoning {
        /// The member that it came in.
        member: &'static str,
        text: Cow<'a, str>,
    },
    /// Anthropic's reasoning.
    Thinking(Thinking<'a>),
    Text(Cow<'a, str>),
    Refusal(Cow<'a, str>),
    /// A call begins; what follows are its arguments.
    Begin(Begin<'a>),
    /// More arguments of the call that began last.
    Arguments(Cow<'a, str>),
}

/// How a call begins.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::dialect) struct Begin<'a> {
    /// Which call of the answer it is, from 0.
    pub(in crate::dialect) place: usize,
    pub(in crate::dialect) id: Cow<'a, str>,
    pub(in crate::dialect) name: Cow<'a, str>,
    /// What the provider wants to see again, as a text.
    pub(in crate::dialect) kept: Option<String>,
}

/// Puts the pieces of one stream in order.
#[derive(Debug)]
pub(in crate::dialect) struct Order {
    calls: Calls,
    /// The call that began last, while nothing else has been said.
    current: Option<usize>,
    arguments: Arguments,
    held: VecDeque<Held>,
}

/// Something that waits for a call to be whole.
#[derive(Debug)]
enum Held {
    Said(Piece<'static>),
    Call {
        begin: Begin<'static>,
        arguments: String,
    },
}

impl Order {
    /// Nothing has been said.
    pub(in crate::dialect) const NEW: Self = Self {
        calls: Calls::NONE,
        current: None,
        arguments: Arguments::NONE,
        held: VecDeque::new(),
    };

    /// Whether the answer calls tools.
    pub(in crate::dialect) const fn has_calls(&self) -> bool {
        self.calls.count > 0
    }

    /// What can be said of a chunk now. Anthropic's reasoning with its signatures is not said a second
    /// time as plain text.
    pub(in crate::dialect) fn chunk<'a>(&mut self, said: &'a Said<'_>) -> Vec<Piece<'a>> {
        let mut out = Vec::new();
        if let Some((member, text)) = &said.reasoning
            && said.thinking.is_empty()
        {
            let text = Cow::Borrowed(&**text);
            self.say(Piece::Reasoning { member, text }, &mut out);
        }
        for block in &said.thinking {
            self.say(Piece::Thinking(block.clone()), &mut out);
        }
        if !said.text.is_empty() {
            self.say(Piece::Text(Cow::Borrowed(&*said.text)), &mut out);
        }
        if !said.refusal.is_empty() {
            self.say(Piece::Refusal(Cow::Borrowed(&*said.refusal)), &mut out);
        }
        for call in &said.calls {
            self.call(call, &mut out);
        }
        out
    }

    /// Says something that is no part of a call.
    fn say<'a>(&mut self, piece: Piece<'a>, out: &mut Vec<Piece<'a>>) {
        if !self.is_waiting() {
            self.current = None;
            out.push(piece);
            return;
        }
        let more = match self.held.back_mut() {
            Some(Held::Said(before)) => before.joined(piece),
            Some(Held::Call { .. }) | None => Some(piece),
        };
        let more = more.map(Piece::into_owned).map(Held::Said);
        self.held.extend(more);
    }

    /// Says a call, or a piece of one.
    fn call<'a>(&mut self, call: &'a Call<'_>, out: &mut Vec<Piece<'a>>) {
        let (place, is_new) = self.calls.place(call);
        if is_new {
            let begin = Begin {
                place,
                id: Cow::Borrowed(&*call.id),
                name: Cow::Borrowed(&*call.name),
                kept: keepsake::of(call),
            };
            if self.is_waiting() {
                let begin = begin.into_owned();
                let arguments = call.arguments.clone().into_owned();
                self.held.push_back(Held::Call { begin, arguments });
            } else {
                self.begin(begin, Cow::Borrowed(&*call.arguments), out);
            }
        } else if self.current == Some(place) {
            self.add(Cow::Borrowed(&*call.arguments), out);
            self.release(out);
        } else if let Some(arguments) = self.held_arguments(place) {
            arguments.push_str(&call.arguments);
        } else if !call.arguments.trim().is_empty() {
            // Its arguments were a whole object, to which nothing can be added.
            tracing::warn!("a provider goes on with a tool call that was whole");
        }
    }

    /// What is still held back when the answer has ended.
    pub(in crate::dialect) fn rest(&mut self) -> Vec<Piece<'static>> {
        let mut out = Vec::new();
        for held in mem::take(&mut self.held) {
            self.tell(held, &mut out);
        }
        out
    }

    /// Whether a call is under way that is not whole.
    fn is_waiting(&self) -> bool {
        self.current.is_some() && !self.arguments.are_whole()
    }

    fn begin<'a>(&mut self, begin: Begin<'a>, arguments: Cow<'a, str>, out: &mut Vec<Piece<'a>>) {
        self.current = Some(begin.place);
        self.arguments = Arguments::NONE;
        out.push(Piece::Begin(begin));
        self.add(arguments, out);
    }

    fn add<'a>(&mut self, arguments: Cow<'a, str>, out: &mut Vec<Piece<'a>>) {
        if !arguments.is_empty() {
            self.arguments.read(&arguments);
            out.push(Piece::Arguments(arguments));
        }
    }

    /// Says what was held back, up to the next call that is not whole.
    fn release(&mut self, out: &mut Vec<Piece<'_>>) {
        while !self.is_waiting()
            && let Some(held) = self.held.pop_front()
        {
            self.tell(held, out);
        }
    }

    fn tell(&mut self, held: Held, out: &mut Vec<Piece<'_>>) {
        match held {
            Held::Said(piece) => {
                self.current = None;
                out.push(piece);
            }
            Held::Call { begin, arguments } => self.begin(begin, Cow::Owned(arguments), out),
        }
    }

    fn held_arguments(&mut self, place: usize) -> Option<&mut String> {
        self.held.iter_mut().find_map(|held| match held {
            Held::Call { begin, arguments } if begin.place == place => Some(arguments),
            Held::Call { .. } | Held::Said(_) => None,
        })
    }
}

impl Piece<'_> {
    fn into_owned(self) -> Piece<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Reasoning { member, text } => Piece::Reasoning {
                member,
                text: owned(text),
            },
            Self::Thinking(block) => Piece::Thinking(Thinking {
                index: block.index,
                text: owned(block.text),
                signature: owned(block.signature),
                data: owned(block.data),
            }),
            Self::Text(text) => Piece::Text(owned(text)),
            Self::Refusal(text) => Piece::Refusal(owned(text)),
            Self::Begin(begin) => Piece::Begin(begin.into_owned()),
            Self::Arguments(text) => Piece::Arguments(owned(text)),
        }
    }

    /// Takes in a piece that goes on with it; gives back another one.
    fn joined<'b>(&mut self, more: Piece<'b>) -> Option<Piece<'b>> {
        match (self, more) {
            (Self::Text(text), Piece::Text(more)) | (Self::Refusal(text), Piece::Refusal(more)) => {
                text.to_mut().push_str(&more);
                None
            }
            (_, more) => Some(more),
        }
    }
}

impl Begin<'_> {
    fn into_owned(self) -> Begin<'static> {
        Begin {
            place: self.place,
            id: Cow::Owned(self.id.into_owned()),
            name: Cow::Owned(self.name.into_owned()),
            kept: self.kept,
        }
    }
}

/// Whether the arguments of a call, which come piece by piece, are a whole object.
#[derive(Clone, Copy, Debug)]
struct Arguments {
    /// Braces and brackets that are open.
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    is_whole: bool,
}

impl Arguments {
    const NONE: Self = Self {
        depth: 0,
        in_string: false,
        is_escaped: false,
        is_whole: false,
    };

    const fn are_whole(self) -> bool {
        self.is_whole
    }

    fn read(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.in_string => self.is_escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => {
                    self.depth = self.depth.saturating_sub(1);
                    self.is_whole = self.depth == 0;
                }
                _ => {}
            }
        }
    }
}

/// Which call each piece of a stream belongs to.
///
/// Some servers leave the index out: a piece without an id goes on with the last call, one with
/// an id with the call of that id.
#[derive(Debug)]
struct Calls {
    by_index: BTreeMap<u64, usize>,
    by_id: BTreeMap<String, usize>,
    count: usize,
}

impl Calls {
    /// No call yet.
    const NONE: Self = Self {
        by_index: BTreeMap::new(),
        by_id: BTreeMap::new(),
        count: 0,
    };

    /// The place of the call that a piece belongs to, from 0, and whether it begins it.
    fn place(&mut self, piece: &Call<'_>) -> (usize, bool) {
        let known = match piece.index {
            Some(index) => self.by_index.get(&index).copied(),
            None if piece.id.is_empty() => self.count.checked_sub(1),
            None => self.by_id.get(piece.id.as_ref()).copied(),
        };
        if let Some(place) = known {
            return (place, false);
        }
        let place = self.count;
        self.count += 1;
        match piece.index {
            Some(index) => drop(self.by_index.insert(index, place)),
            None => drop(self.by_id.insert(piece.id.clone().into_owned(), place)),
        }
        (place, true)
    }
}

#[cfg(test)]
mod tests;
