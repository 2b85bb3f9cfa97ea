//! Load: clients that ask without end and remember exactly what they got.
//!
//! What a request is to be (streamed or whole, how many chunks, how fast, with or without usage,
//! whether its client hangs up) is drawn from the seed and written into its tag, the last word of
//! its last message; so the scripted upstream plays it without being told, and a request is found
//! again in the log whatever happened to its answer.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use nexus_tests::account::{Answered, BOUND, Memory, Received};
use nexus_tests::client::Ending;
use nexus_tests::seed::Seed;
use nexus_tests::upstream::Request;
use nexus_tests::{Client, Result, Script, Upstream, settings, until};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The model that the load asks for.
pub(crate) const MODEL: &str = "gpt-test";

/// A client without an open door looks again after 20 ms.
const CLOSED_DOOR: Duration = Duration::from_millis(20);

/// A client thinks for so long at most before it asks again: scenarios mostly wait, and side by side they would
/// take the machine from each other. A soak does not think.
const THOUGHT: Duration = Duration::from_millis(300);

/// Clients that ask until they are told to stop.
pub(crate) struct Load {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

struct Shared {
    /// The gateways that can be asked at present.
    doors: Mutex<Vec<Option<Client>>>,
    memory: Mutex<Memory>,
    thought: Duration,
}

/// What one request is to be.
#[derive(Debug, Clone, Copy)]
struct Plan {
    stream: bool,
    chunks: u64,
    pause_ms: u64,
    usage: bool,
    /// The client hangs up after so many chunks.
    hang_up: Option<usize>,
}

/// Teaches the upstream to play what the tags of the load say.
pub(crate) fn play(upstream: &Upstream) {
    upstream.choose(script_of);
}

fn script_of(request: &Request) -> Script {
    let tag = request.tag();
    let number = |letter: char| {
        let word = tag.split('-').find_map(|word| word.strip_prefix(letter));
        word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
    };
    let chunks = usize::try_from(number('c')).unwrap_or(0);
    let script = Script::answer()
        .chunks(chunks)
        .pause(Duration::from_millis(number('p')));
    if number('u') == 0 {
        script.without_usage()
    } else {
        script
    }
}

impl Plan {
    fn draw(seed: &mut Seed) -> Self {
        let chunks = seed.below(12) + 1;
        Self {
            stream: !seed.one_in(4),
            chunks,
            pause_ms: seed.below(25),
            usage: !seed.one_in(5),
            hang_up: seed
                .one_in(8)
                .then(|| usize::try_from(seed.below(chunks)).unwrap_or(0)),
        }
    }

    fn tag(self, client: usize, number: u64) -> String {
        let Self {
            chunks, pause_ms, ..
        } = self;
        let usage = u8::from(self.usage);
        format!("r{client}x{number}-c{chunks}-p{pause_ms}-u{usage}")
    }
}

impl Load {
    /// Starts `clients` of them, each with a seed of its own, asking these gateways.
    ///
    /// # Errors
    /// `FAULT_SECONDS` is no number.
    pub(crate) fn start(clients: usize, seed: &mut Seed, doors: Vec<Client>) -> Result<Self> {
        let soaks = settings::fault_seconds()?.is_some();
        let load = Self {
            shared: Arc::new(Shared {
                doors: Mutex::new(doors.into_iter().map(Some).collect()),
                memory: Mutex::default(),
                thought: if soaks { Duration::ZERO } else { THOUGHT },
            }),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        for client in 0..clients {
            let (shared, stop) = (Arc::clone(&load.shared), load.stop.clone());
            let seed = seed.fork();
            load.tasks.spawn(async move {
                let asking = ask_for_ever(client, seed, &shared, &stop);
                asking.await;
            });
        }
        Ok(load)
    }

    /// A gateway is gone, or is to be asked at this address from now on.
    pub(crate) fn door(&self, number: usize, client: Option<Client>) {
        if let Some(door) = self.shared.doors.lock().get_mut(number) {
            *door = client;
        }
    }

    /// How many requests have been asked so far.
    pub(crate) fn asked(&self) -> usize {
        self.shared.memory.lock().asked.len()
    }

    /// What the clients remember so far, looked at.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&Memory) -> T) -> T {
        at(&self.shared.memory.lock())
    }

    /// Waits until so many more requests have been refused.
    pub(crate) async fn is_refused(&self, more: usize) -> Result<()> {
        let refused = || self.look(|memory| memory.refused.len());
        let before = refused();
        until("requests are refused", BOUND, async || {
            let refused = refused() - before;
            ensure!(refused >= more, "{refused} requests were refused");
            Ok(())
        })
        .await
    }

    /// Waits until so many more requests have been answered well.
    pub(crate) async fn is_answered(&self, more: usize) -> Result<()> {
        let answered = || {
            self.look(|memory| {
                let streams = memory.streams.iter();
                let done = streams.filter(|stream| stream.seen.ending == Some(Ending::Done));
                memory.answers.len() + done.count()
            })
        };
        let before = answered();
        until("requests are answered", BOUND, async || {
            let answered = answered() - before;
            ensure!(answered >= more, "{answered} requests were answered");
            Ok(())
        })
        .await
    }

    /// Waits until so many more requests have been asked.
    pub(crate) async fn goes_on(&self, more: usize) -> Result<()> {
        let before = self.asked();
        until("traffic goes on", BOUND, async || {
            let asked = self.asked() - before;
            ensure!(asked >= more, "{asked} requests were asked");
            Ok(())
        })
        .await
    }

    /// Lets every client finish what it has begun, and gives what they remember.
    pub(crate) async fn stop(self) -> Memory {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        std::mem::take(&mut *self.shared.memory.lock())
    }
}

async fn ask_for_ever(client: usize, mut seed: Seed, shared: &Shared, stop: &CancellationToken) {
    let mut history: Vec<Value> = Vec::new();
    let mut number = 0;
    while !stop.is_cancelled() {
        number += 1;
        let plan = Plan::draw(&mut seed);
        let doors: Vec<Client> = shared.doors.lock().iter().flatten().cloned().collect();
        let place = usize::try_from(seed.below(doors.len().max(1) as u64)).unwrap_or(0);
        let Some(door) = doors.get(place) else {
            tokio::time::sleep(CLOSED_DOOR).await;
            continue;
        };
        // Every third request goes on with what was said before.
        if !seed.one_in(3) || history.len() > 8 {
            history.clear();
        }
        let tag = plan.tag(client, number);
        history.push(json!({"role": "user", "content": format!("tell me about rivers, {tag}")}));
        let body = json!({"model": MODEL, "messages": history});
        shared.memory.lock().asked.push(tag.clone());
        let answer = if plan.stream {
            stream(door, &tag, &body, plan.hang_up, shared).await
        } else {
            whole(door, &tag, &body, shared).await
        };
        if let Ok(Some(text)) = answer {
            history.push(json!({"role": "assistant", "content": text}));
            tokio::time::sleep(seed.between(Duration::ZERO, shared.thought)).await;
        } else {
            // The gateway was dead, died, or refused: what it said is remembered, if anything.
            history.clear();
            tokio::time::sleep(CLOSED_DOOR).await;
        }
    }
}

/// Asks for a stream; gives the text of an answer that ended well.
async fn stream(
    door: &Client,
    tag: &str,
    body: &Value,
    hang_up: Option<usize>,
    shared: &Shared,
) -> Result<Option<String>> {
    let mut stream = door.chat_stream(body).await?;
    let request_id = stream.header("x-request-id").map(str::to_owned);
    let status = stream.status;
    let seen = match hang_up {
        Some(after) => {
            // It may end before it has so many.
            drop(stream.chunks(after).await);
            stream.hang_up().await?
        }
        None => stream.end().await?,
    };
    let text = (seen.ending == Some(Ending::Done)).then(|| seen.text(0));
    let Some(request_id) = request_id else {
        return Ok(None);
    };
    let mut memory = shared.memory.lock();
    if status == 200 {
        memory.streams.push(Received { request_id, seen });
    } else {
        memory.refused.push((tag.to_owned(), status));
    }
    Ok(text)
}

/// Asks for a whole answer; gives its text.
async fn whole(door: &Client, tag: &str, body: &Value, shared: &Shared) -> Result<Option<String>> {
    let answer = door.chat(body).await?;
    let mut memory = shared.memory.lock();
    if answer.status != 200 {
        memory.refused.push((tag.to_owned(), answer.status));
        return Ok(None);
    }
    let text = answer.content().to_owned();
    if let Some(request_id) = answer.header("x-request-id") {
        memory.answers.push(Answered {
            request_id: request_id.to_owned(),
            text: text.clone(),
        });
    }
    Ok(Some(text))
}
