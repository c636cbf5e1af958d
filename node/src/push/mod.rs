//! The push service: what publishers send is taken, verified and written down here.
//!
//! One task per connection and one per request, all bounded. Trust questions go to the driver;
//! bytes go straight to the store. An entry is answered only when it is durable.

mod behind;
mod refused;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use quinn::{RecvStream, SendStream};
use stork_wire::codec::{List, encode};
use stork_wire::feed::ManifestRef;
use stork_wire::frame::{ItemRange, PackState, PushReply, PushRequest, Refusal};
use stork_wire::ids::{LogId, NodeId, PackId, Position, PublisherId};
use stork_wire::limits::{MANIFEST_LEN_MAX, PUSH_FRAME_LEN_MAX, SEGMENT_LEN_MAX};
use stork_wire::sign::Envelope;
use stork_wire::text::Line;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::driver::{Clock, PushCall, keep_push};
use crate::net::{INTRODUCTION, PushConnection, write_raw};
use crate::store::{Room, Store, StoreError, UploadState};

use refused::{Refused, malformed, stopping};
use streams::{accept, end_of_request, read_request, read_some};

/// Publishers served at once.
pub const CONNECTIONS_MAX: usize = 16;
/// Requests of one connection at once.
const REQUESTS_MAX: usize = 8;
/// A publisher that sends nothing for so long is given up.
const STALL: Duration = Duration::from_secs(30);
/// How long the last reply of a connection is waited for to arrive.
const REPLY_WAIT: Duration = Duration::from_secs(3);
/// Bytes read before they are written.
const CHUNK: usize = 256 * 1024;
/// Documents that a connection may bring before it says who it is: they prove themselves.
const DOCUMENTS_BEFORE_HELLO: usize = 16;
/// How often, and how many times, an entry on its way to the disk is looked for: 2 s in all.
const JOURNAL_LOOK_EVERY: Duration = Duration::from_millis(5);
const JOURNAL_LOOKS: usize = 400;

/// What every request needs.
#[derive(Debug, Clone)]
struct Service {
    me: NodeId,
    store: Arc<Store>,
    driver: mpsc::Sender<PushCall>,
    clock: Clock,
}

/// Serves publishers until the channel closes.
pub async fn serve(
    me: NodeId,
    store: Arc<Store>,
    driver: mpsc::Sender<PushCall>,
    clock: Clock,
    mut connections: mpsc::Receiver<PushConnection>,
) {
    let service = Service { me, store, driver, clock };
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    while let Some(push) = connections.recv().await {
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            push.connection.close(1u32.into(), b"busy: too many publishers at once");
            continue;
        };
        let service = service.clone();
        tokio::spawn(async move {
            service.connection(push).await;
            drop(place);
        });
    }
}

type Outcome = Result<Answer, Refused>;

/// A reply, with raw bytes after it.
struct Answer {
    reply: PushReply,
    bytes: Vec<u8>,
}

impl From<PushReply> for Answer {
    fn from(reply: PushReply) -> Self {
        Self { reply, bytes: Vec::new() }
    }
}

impl Service {
    async fn connection(&self, mut push: PushConnection) {
        let introduced = timeout(INTRODUCTION, self.introduction(&mut push)).await;
        let Some(publisher) = introduced.ok().flatten() else { return };
        let places = Arc::new(tokio::sync::Semaphore::new(REQUESTS_MAX));
        while let Ok((send, recv)) = push.connection.accept_bi().await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let service = self.clone();
            tokio::spawn(async move {
                service.request(publisher, send, recv).await;
                drop(place);
            });
        }
    }

    /// Requests up to a good hello: that one, and documents that prove themselves.
    async fn introduction(&self, push: &mut PushConnection) -> Option<PublisherId> {
        let mut documents = 0;
        let mut who = None;
        loop {
            let (mut send, mut recv) = accept(&push.connection).await?;
            let request = read_request(&mut recv).await;
            let outcome = match request {
                Ok(PushRequest::Hello { cert, .. }) => self.hello(push, cert, None, &mut who).await,
                Ok(PushRequest::HelloDelegated { cert, via, .. }) => {
                    self.hello(push, cert, Some(via), &mut who).await
                }
                Ok(PushRequest::Documents(items)) if documents < DOCUMENTS_BEFORE_HELLO => {
                    documents += items.len();
                    self.documents(items.into_vec()).await
                }
                Ok(_) => Err(malformed("say hello first")),
                Err(e) => Err(e),
            };
            self.count(&outcome);
            let end = matches!(&outcome, Err(e) if e.code != Refusal::Trust);
            respond(&mut send, outcome).await;
            if who.is_some() {
                return who;
            }
            if end {
                // The connection ends with this function; the reply must be there before it.
                drop(timeout(REPLY_WAIT, send.stopped()).await);
                return None;
            }
        }
    }

    async fn hello(
        &self,
        push: &mut PushConnection,
        cert: Envelope,
        via: Option<Envelope>,
        who: &mut Option<PublisherId>,
    ) -> Outcome {
        let key = push.key;
        let ask = |answer| PushCall::Hello { cert, via, key, answer };
        let auth = self.ask(ask).await?;
        let auth =
            auth.map_err(|e| Refused { code: Refusal::Trust, why: e.to_string(), counted: true })?;
        let welcome = PushReply::Welcome { node: self.me, name: auth.node_name };
        push.admit();
        *who = Some(auth.publisher);
        Ok(welcome.into())
    }

    /// Asks the driver.
    async fn ask<T>(
        &self,
        call: impl FnOnce(oneshot::Sender<T>) -> PushCall,
    ) -> Result<T, Refused> {
        let (answer, outcome) = oneshot::channel();
        self.driver.send(call(answer)).await.map_err(stopping)?;
        outcome.await.map_err(stopping)
    }

    /// Tells the driver of a refusal that it has not counted itself. What a flood of bad requests
    /// leaves no room for is not counted.
    fn count(&self, outcome: &Outcome) {
        if let Err(e) = outcome
            && !e.counted
        {
            let call = PushCall::Refused { code: e.word(), why: e.why.clone() };
            self.driver.try_send(call).unwrap_or_default();
        }
    }

    async fn request(&self, publisher: PublisherId, mut send: SendStream, mut recv: RecvStream) {
        let outcome = match read_request(&mut recv).await {
            Ok(request) => self.fulfil(publisher, request, &mut recv).await,
            Err(e) => Err(e),
        };
        self.count(&outcome);
        if outcome.is_err() {
            // What the publisher still sends for a refused request is not read.
            drop(recv.stop(1u32.into()));
        }
        respond(&mut send, outcome).await;
    }

    async fn fulfil(
        &self,
        publisher: PublisherId,
        request: PushRequest,
        recv: &mut RecvStream,
    ) -> Outcome {
        match request {
            PushRequest::Hello { .. } | PushRequest::HelloDelegated { .. } => {
                Err(malformed("hello comes once"))
            }
            PushRequest::Documents(items) => self.documents(items.into_vec()).await,
            PushRequest::Head => self.head(publisher).await,
            PushRequest::Latest { package, arch } => {
                let ask = |answer| PushCall::Latest { publisher, package, arch, answer };
                let at = self.ask(ask).await?;
                let entry = self.entry(publisher, at).await?;
                Ok(PushReply::Latest(entry).into())
            }
            PushRequest::Packs(packs) => self.pack_states(packs.into_vec()).await,
            PushRequest::PutPack { pack, size, offset } => {
                self.put_pack(pack, size, offset, recv).await
            }
            PushRequest::PutManifest(reference) => self.put_manifest(reference, recv).await,
            PushRequest::Commit(entry) => {
                let ask = |answer| PushCall::Commit { publisher, entry, answer };
                let (seq, peers) = self.ask(ask).await??;
                Ok(PushReply::Committed { seq, peers }.into())
            }
            PushRequest::GetManifest(id) => {
                let found = self.blocking(move |s| s.manifest(id)).await?;
                let missing = || Refused::new(Refusal::NotFound, "that manifest is not here");
                Ok(blob(found.ok_or_else(missing)?))
            }
            PushRequest::GetPack(pack) => self.get_pack(pack).await,
            PushRequest::Forked { package } => self.behind(publisher, package).await,
            PushRequest::Releases { package, before } => {
                let ask = |answer| PushCall::Releases { publisher, package, before, answer };
                let places = self.ask(ask).await?;
                self.entries(publisher, places).await
            }
            PushRequest::Live { before } => {
                let places =
                    self.ask(|answer| PushCall::Live { publisher, before, answer }).await?;
                self.entries(publisher, places).await
            }
        }
    }

    async fn entries(&self, publisher: PublisherId, places: Vec<Position>) -> Outcome {
        let mut entries = Vec::new();
        for at in places {
            entries.extend(self.entry(publisher, Some(at)).await?.map(|e| *e));
        }
        Ok(PushReply::Releases(List::truncated(entries)).into())
    }

    async fn documents(&self, items: Vec<stork_wire::item::Item>) -> Outcome {
        self.ask(|answer| PushCall::Documents { items, answer }).await??;
        Ok(PushReply::Taken.into())
    }

    async fn head(&self, publisher: PublisherId) -> Outcome {
        let (at, live) = self.ask(|answer| PushCall::Head { publisher, answer }).await?;
        let entry = self.entry(publisher, at).await?;
        Ok(PushReply::Head { entry, live }.into())
    }

    async fn entry(
        &self,
        publisher: PublisherId,
        at: Option<Position>,
    ) -> Result<Option<Box<Envelope>>, Refused> {
        let Some(Position { epoch, seq }) = at else { return Ok(None) };
        let log = LogId::feed_epoch(publisher, epoch);
        let range = ItemRange { log, from: seq, to: seq };
        // The rules know an entry some milliseconds before the disk does. To answer without it
        // would show a list of live releases that no head commits to.
        for _ in 0..JOURNAL_LOOKS {
            let items = self.blocking(move |s| s.items(range, PUSH_FRAME_LEN_MAX, 1)).await?;
            if let Some(item) = items.into_iter().next() {
                return Ok(Some(Box::new(item.envelope)));
            }
            tokio::time::sleep(JOURNAL_LOOK_EVERY).await;
        }
        Err(Refused::new(Refusal::Busy, "the newest entry is not on disk yet"))
    }

    /// Runs disk work off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Store>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refused> {
        let store = Arc::clone(&self.store);
        let joined = tokio::task::spawn_blocking(move || work(&store)).await;
        Ok(joined.map_err(stopping)??)
    }

    async fn pack_states(&self, packs: Vec<(PackId, u64)>) -> Outcome {
        let states = self
            .blocking(move |store| {
                let mut missing = Room::default();
                let mut out = Vec::with_capacity(packs.len());
                for (pack, size) in packs {
                    out.push(match store.upload_state(pack, size)? {
                        UploadState::Whole => PackState::Whole,
                        UploadState::Partial(have) => {
                            let bytes = size.saturating_sub(have);
                            missing.bytes = missing.bytes.saturating_add(bytes);
                            missing.files += 1;
                            PackState::Partial(have)
                        }
                    });
                }
                // Refused before the first byte is sent, not half-way.
                drop(store.reserve(missing)?);
                Ok(out)
            })
            .await?;
        Ok(PushReply::Packs(List::truncated(states)).into())
    }

    async fn put_pack(
        &self,
        pack: PackId,
        size: u64,
        offset: u64,
        recv: &mut RecvStream,
    ) -> Outcome {
        if size > SEGMENT_LEN_MAX + SEGMENT_LEN_MAX / 64 {
            return Err(malformed("a pack larger than any pack may be"));
        }
        let mut at = offset;
        while at < size {
            let room = usize::try_from(size - at).unwrap_or(CHUNK).min(CHUNK);
            let bytes = read_some(recv, room).await?;
            let len = bytes.len() as u64;
            self.blocking(move |s| s.upload_append(pack, size, at, &bytes).map(drop)).await?;
            at += len;
        }
        end_of_request(recv).await?;
        self.blocking(move |s| s.upload_finish(pack, size)).await?;
        Ok(PushReply::Taken.into())
    }

    async fn put_manifest(&self, reference: ManifestRef, recv: &mut RecvStream) -> Outcome {
        if reference.size > MANIFEST_LEN_MAX {
            return Err(malformed("a manifest larger than any manifest may be"));
        }
        let size = usize::try_from(reference.size).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        while bytes.len() < size {
            bytes.extend(read_some(recv, (size - bytes.len()).min(CHUNK)).await?);
        }
        end_of_request(recv).await?;
        let now = self.clock.unix();
        self.blocking(move |store| {
            store.put_manifest(&reference, &bytes)?;
            match store.manifest_decoded(reference.id)? {
                Some(m) => keep_push(store, reference.id, &m, now),
                None => Ok(()),
            }
        })
        .await?;
        Ok(PushReply::Taken.into())
    }

    async fn get_pack(&self, pack: PackId) -> Outcome {
        let bytes = self
            .blocking(move |store| {
                let size = store.pack_size(pack)?.ok_or(StoreError::NoPack(pack))?;
                store.read_pack(pack, 0, usize::try_from(size).unwrap_or(usize::MAX))
            })
            .await?;
        Ok(blob(bytes))
    }
}

fn blob(bytes: Vec<u8>) -> Answer {
    Answer { reply: PushReply::Blob(bytes.len() as u64), bytes }
}

async fn respond(send: &mut SendStream, outcome: Outcome) {
    let Answer { reply, bytes } = outcome.unwrap_or_else(|Refused { code, why, .. }| {
        let text: String = why.chars().filter(|c| !c.is_control()).take(400).collect();
        let message = text.parse::<Line>().or_else(|_e| "refused".parse());
        // Both texts are short and clean, so that one of them parses.
        message.map_or(PushReply::Taken, |message| PushReply::Refused { code, message }).into()
    });
    // A publisher that went away meanwhile asks again; every request may be repeated.
    if write_raw(send, &encode(&reply)).await.is_ok() && send.write_all(&bytes).await.is_ok() {
        drop(send.finish());
    }
}
