//! Which conversation a request belongs to.
//!
//! *What it is.* A chat request repeats its whole history, so the history says
//! where it belongs: the longest prefix of the message list that an earlier
//! exchange of the same key (and the same `user`, where given) ended with,
//! inside a sliding [window](crate::shared::WINDOW). System and developer
//! messages are left aside. A prefix counts only if it ends with an answer, so
//! two people with the same opening never merge. Where only a shorter prefix
//! is known, a turn was edited or asked again: a branch of the same
//! conversation. A client may name its conversation instead.
//!
//! *What it promises.* Only what comes after the prefix has to be stored again,
//! and the request can be put together from the log, equal to what was sent but
//! for null and empty members and for how a repeated tool call spells its
//! arguments. A prefix is always of the conversation that the
//! request goes into, so erasing one conversation takes nothing from another.
//! No key gets into another key's conversation.
//!
//! *What it never does.* It fails no request: what is not found is a new
//! conversation, stored in full.

mod conversation_id;
pub mod matched;
pub mod message_tree;
mod read_request;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use hmac::Mac;
use nexus_events::{
    clock::SharedClock,
    id::{ConversationId, KeyId, RequestId},
    message_id::MessageId,
};
use serde_json::value::RawValue;

use crate::shared::{ExchangeEnd, PrefixQuery, Remembered, ScopeId, SharedState, StoredSystem};
use conversation_id::Whose;
use message_tree::{MessageTree, ReadMessage};
use read_request::ReadRequest;

pub use matched::{Matched, Thread};

/// Answers of one message list that are looked up: the last 128.
///
/// The one that fits is nearly always the last or the one before; 128 keep a
/// single look-up below 0.1 ms in Redis.
const LOOKED_UP_MAX: usize = 128;

/// How old system messages may be and still be referred to: one day.
///
/// Retention removes events by age; a reference over a day at most keeps what
/// is referred to from going before what refers to it does so for long.
const SYSTEM_AGE_MAX: Duration = Duration::from_hours(24);

/// Whose request it is.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The key that asks.
    pub key: KeyId,
    /// The `user` of the request.
    pub user: Option<&'a str>,
}

/// A request as the matching sees it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'m, 'a> {
    /// Its id.
    pub request: RequestId,
    /// Whose it is.
    pub scope: Scope<'m>,
    /// Its messages, system and developer ones included.
    pub messages: &'m [&'a RawValue],
    /// The conversation that the client names.
    pub conversation: Option<ConversationId>,
}

/// The conversation that a client named.
#[derive(Clone, Copy, Debug)]
struct Named {
    id: ConversationId,
    is_known: bool,
}

/// Tells which key a conversation belongs to, from what lasts: the read model.
pub trait ConversationOwners: Send + Sync + fmt::Debug {
    /// The key of its exchanges; `None` when there are none, or nobody can tell now.
    fn owner(&self, conversation: ConversationId) -> BoxFuture<'_, Option<KeyId>>;
}

/// An exchange of the last half hour, read back after a restart.
#[derive(Clone, Debug)]
pub struct RecentEnd {
    /// The key that asked.
    pub key: KeyId,
    /// The `user` of the request.
    pub user: Option<String>,
    /// The conversation.
    pub conversation: ConversationId,
    /// The answers it ended with, one for each choice.
    pub answers: Vec<MessageId>,
    /// Its system messages, by [`Sessions::stored_before`]; `None` has the next turn store them
    /// again.
    pub system: Option<StoredSystem>,
    /// How long ago it ended.
    pub age: Duration,
}

/// Finds the conversation of each request; a cheap handle.
#[derive(Clone, Debug)]
pub struct Sessions {
    tree: MessageTree,
    shared: Arc<dyn SharedState>,
    owners: Arc<dyn ConversationOwners>,
    clock: SharedClock,
}

impl Sessions {
    /// Conversations under that message key.
    pub fn new(
        message_key: &[u8; 32],
        shared: Arc<dyn SharedState>,
        owners: Arc<dyn ConversationOwners>,
        clock: SharedClock,
    ) -> Self {
        Self {
            tree: MessageTree::new(message_key),
            shared,
            owners,
            clock,
        }
    }

    /// Finds where a request belongs.
    pub async fn match_request<'a>(&self, asked: Asked<'_, 'a>) -> Matched<'a> {
        let read = ReadRequest::of(&self.tree, asked.messages);
        let scope = self.scope_id(asked.scope);
        let named = match asked.conversation {
            Some(given) => Some(self.named(asked.scope.key, given).await),
            None => None,
        };
        let found = self.find(scope, &read, named.map(|named| named.id)).await;
        let (conversation, is_new) = match (named, found) {
            (Some(named), found) => (named.id, !named.is_known && found.is_none()),
            (None, Some((_, end))) => (end.conversation, false),
            (None, None) => (self.draw(asked.scope.key), true),
        };
        let (prefix, earlier) = found.unzip();
        let earlier = earlier.and_then(|end| end.system);
        let thread = Thread {
            scope,
            end: ExchangeEnd {
                conversation,
                system: self.stored_system(asked.request, &read, earlier),
            },
        };
        Matched::new(read, prefix, thread, is_new, asked.request)
    }

    /// The id of an answer: the child of the request's last message.
    pub fn answer_id(&self, last: Option<MessageId>, answer: &RawValue) -> MessageId {
        self.tree.id(last, answer)
    }

    /// Keeps that an exchange ended with those answers, one for each choice.
    ///
    /// Also for an answer that broke off: the client may go on from what it got.
    pub async fn answered(&self, thread: &Thread, answers: &[MessageId]) {
        if !answers.is_empty() {
            self.shared
                .remember(thread.scope, answers, thread.end, Remembered::Now)
                .await;
        }
    }

    /// Keeps an exchange that ended before this gateway started.
    ///
    /// What is known already stays.
    pub async fn seed(&self, recent: &RecentEnd) {
        let scope = self.scope_id(Scope {
            key: recent.key,
            user: recent.user.as_deref(),
        });
        let end = ExchangeEnd {
            conversation: recent.conversation,
            system: recent.system,
        };
        self.shared
            .remember(scope, &recent.answers, end, Remembered::Ago(recent.age))
            .await;
    }

    /// System messages that an earlier request stored, each with its place; `None` for none.
    pub fn stored_before<'m>(
        &self,
        full_in: RequestId,
        messages: impl IntoIterator<Item = (u32, &'m RawValue)>,
    ) -> Option<StoredSystem> {
        let messages = messages.into_iter();
        let read: Vec<_> = messages
            .map(|(place, message)| (place, ReadMessage::of(message)))
            .collect();
        (!read.is_empty()).then(|| StoredSystem {
            digest: self.tree.system_digest(&read),
            full_in,
        })
    }

    fn draw(&self, key: KeyId) -> ConversationId {
        conversation_id::draw(&self.tree, key, &*self.clock)
    }

    /// The conversation that a client means by an id.
    ///
    /// An id that the hub drew tells whose it is. Any other is a name that a
    /// client made up: it belongs to the key that came first, by the shared
    /// state and then by the read model. (While the read model is away, a name
    /// that nobody used for half an hour is taken at its word.) What is somebody
    /// else's is replaced by a stand-in: it neither joins nor tells that it exists.
    async fn named(&self, key: KeyId, given: ConversationId) -> Named {
        let (holder, is_known) = match conversation_id::whose(&self.tree, key, given) {
            Whose::Own => (Some(key), true),
            Whose::Another => (None, true),
            Whose::MadeUp => self.holder(key, given).await,
        };
        if holder == Some(key) {
            return Named {
                id: given,
                is_known,
            };
        }
        Named {
            id: conversation_id::stand_in(&self.tree, key, given),
            is_known: false,
        }
    }

    /// Who holds a name that a client made up, and whether somebody did before.
    async fn holder(&self, key: KeyId, given: ConversationId) -> (Option<KeyId>, bool) {
        let holder = self.shared.holder(given, None).await;
        if holder.is_some() {
            return (holder, true);
        }
        let owner = self.owners.owner(given).await;
        let holder = self.shared.holder(given, owner.or(Some(key))).await;
        (holder, owner.is_some())
    }

    /// The longest known prefix, as the place of its last message in the tree's part of the list.
    async fn find(
        &self,
        scope: ScopeId,
        read: &ReadRequest<'_>,
        conversation: Option<ConversationId>,
    ) -> Option<(usize, ExchangeEnd)> {
        let (places, ids): (Vec<usize>, Vec<MessageId>) = read
            .nodes
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, node)| node.is_answer)
            .take(LOOKED_UP_MAX)
            .map(|(place, node)| (place, node.id))
            .unzip();
        if ids.is_empty() {
            return None;
        }
        let query = PrefixQuery {
            scope,
            ids: &ids,
            conversation,
        };
        let prefix = self.shared.find_prefix(query).await?;
        places.get(prefix.index).map(|place| (*place, prefix.end))
    }

    /// Where this request's system messages are stored: in the earlier request or in this one.
    fn stored_system(
        &self,
        request: RequestId,
        read: &ReadRequest<'_>,
        earlier: Option<StoredSystem>,
    ) -> Option<StoredSystem> {
        let digest = read.system_digest()?;
        let oldest = self.clock.now().minus(SYSTEM_AGE_MAX);
        let fits = |earlier: &StoredSystem| {
            earlier.digest == digest && earlier.full_in.drawn_at() > oldest
        };
        let stored = earlier.filter(fits).unwrap_or(StoredSystem {
            digest,
            full_in: request,
        });
        Some(stored)
    }

    fn scope_id(&self, scope: Scope<'_>) -> ScopeId {
        let mut hash = self.tree.hash("nexus scope v1");
        hash.update(scope.key.as_uuid().as_bytes());
        if let Some(user) = scope.user {
            hash.update(&[1]);
            hash.update(user.as_bytes());
        }
        ScopeId::from_bytes(message_tree::first_half(hash))
    }
}

#[cfg(test)]
mod tests;
