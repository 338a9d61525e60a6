//! The listener: accepts and refuses subscribers.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fragcast_port::{Backoff, Descriptor, Descriptors, PortStats, Refusal, network, tune};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::http::header::CONTENT_LENGTH;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::Settings;
use super::ring::Ring;
use super::stats::{Dropped, FlashblocksStats};
use super::subscriber::{self, Frames, MAX_INCOMING};

/// Refusals that are sent at a time; beyond, connections are closed without a word.
const REFUSALS: usize = 16;

/// State shared by the server's tasks.
pub(super) struct Hub {
    pub(super) ring: Ring,
    pub(super) stats: Arc<FlashblocksStats>,
    pub(super) settings: Settings,
    pub(super) stopped: watch::Receiver<bool>,
    seats: Arc<Seats>,
}

impl Hub {
    pub(super) fn new(settings: Settings, stopped: watch::Receiver<bool>) -> Self {
        let (most, per_address) = (settings.subscribers, settings.per_address);
        let descriptors = settings.descriptors.clone();
        Self {
            ring: Ring::new(settings.buffer),
            stats: Arc::default(),
            settings,
            stopped,
            seats: Arc::new(Seats { most, per_address, descriptors, taken: Mutex::default() }),
        }
    }
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Places for connections, handshakes included.
struct Seats {
    most: usize,
    per_address: usize,
    descriptors: Option<Descriptors>,
    taken: Mutex<Taken>,
}

/// A place for a connection; dropping it frees the place.
struct Seat {
    seats: Arc<Seats>,
    address: IpAddr,
    _descriptor: Option<Descriptor>,
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, address: IpAddr) -> Result<Seat, Dropped> {
        let address = network(address);
        let mut taken = self.lock();
        if taken.by_address.get(&address).is_some_and(|n| *n >= self.per_address) {
            return Err(Dropped::Address);
        }
        if taken.all >= self.most {
            return Err(Dropped::Full);
        }
        let descriptor = match &self.descriptors {
            Some(descriptors) => Some(descriptors.take().ok_or(Dropped::Full)?),
            None => None,
        };
        taken.all += 1;
        *taken.by_address.entry(address).or_default() += 1;
        Ok(Seat { seats: Arc::clone(self), address, _descriptor: descriptor })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        taken.all -= 1;
        if let Some(n) = taken.by_address.get_mut(&self.address) {
            *n -= 1;
            if *n == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// Resolves when the server is stopped.
pub(super) async fn until(stopped: &mut watch::Receiver<bool>) {
    // An error: whoever could have closed it is gone.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Serves until it is stopped, then closes all subscriptions.
pub(super) async fn serve(listener: TcpListener, hub: Arc<Hub>) {
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let mut stopped = hub.stopped.clone();
    let (mut backoff, accepting) = (Backoff::default(), PortStats::default());
    // Connections end with this task.
    let mut connections = JoinSet::new();
    loop {
        let (stream, from) = tokio::select! {
            accepted = backoff.accept(&listener, None, &accepting) => accepted,
            Some(_) = connections.join_next() => continue,
            () = until(&mut stopped) => break,
        };
        match hub.seats.take(from.ip()) {
            Ok(seat) => {
                connections.spawn(admit(stream, from, Arc::clone(&hub), seat));
            }
            Err(reason) => {
                hub.stats.drop_for(reason);
                if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                    let limit = hub.settings.handshake;
                    connections.spawn(async move {
                        let told = handshake(stream, Answer::Full(reason));
                        // Whether it was heard is no matter.
                        let _ = tokio::time::timeout(limit, told).await;
                        drop(permit);
                    });
                }
            }
        }
    }
    let told = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(hub.settings.closing, told).await;
}

async fn admit(stream: TcpStream, from: SocketAddr, hub: Arc<Hub>, seat: Seat) {
    tune(&stream);
    let shaken =
        tokio::time::timeout(hub.settings.handshake, handshake(stream, Answer::Ask(&hub))).await;
    let (socket, frames) = match shaken {
        Ok(Ok(shaken)) => shaken,
        // Refused, and counted.
        Ok(Err(Error::Http(_))) => return,
        _ => return hub.stats.drop_for(Dropped::Handshake),
    };
    tracing::debug!(%from, "flashblocks: subscribed");
    let end = subscriber::serve(socket, frames, &hub).await;
    tracing::debug!(%from, ?end, "flashblocks: a subscription has ended");
    drop(seat);
}

type Shaken = (subscriber::Socket, Frames);

/// How a handshake is answered.
enum Answer<'a> {
    /// There is no place.
    Full(Dropped),
    /// It is looked at.
    Ask(&'a Hub),
}

/// Does the handshake, or refuses it.
async fn handshake(stream: TcpStream, answer: Answer<'_>) -> Result<Shaken, Error> {
    let mut frames = Frames::Binary;
    #[expect(clippy::result_large_err, reason = "tungstenite's signature")]
    let answer = |request: &Request, response: Response| match answer {
        Answer::Ask(hub) => {
            let guard = &hub.settings.guard;
            let checked = guard.check(request.uri(), request.headers());
            if let Err(refusal) = checked.and_then(|()| guard.check_origin(request.headers())) {
                hub.stats.drop_for(Dropped::Refused);
                return Err(forbidden(refusal));
            }
            frames = Frames::of(request.uri().path());
            Ok(response)
        }
        Answer::Full(reason) => Err(refusal(reason)),
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(MAX_INCOMING)
        // Everything is sent at once.
        .write_buffer_size(0)
        .max_message_size(Some(MAX_INCOMING))
        .max_frame_size(Some(MAX_INCOMING));
    let socket = accept_hdr_async_with_config(stream, answer, Some(config)).await?;
    Ok((socket, frames))
}

fn forbidden(refusal: Refusal) -> ErrorResponse {
    respond(refusal.status, refusal.text)
}

fn refusal(reason: Dropped) -> ErrorResponse {
    let (status, text) = match reason {
        Dropped::Address => (
            StatusCode::TOO_MANY_REQUESTS,
            "your address has as many subscriptions as one may have: close one first\n",
        ),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "there are as many subscribers as there may be: try another node\n",
        ),
    };
    respond(status, text)
}

fn respond(status: StatusCode, text: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(text.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_LENGTH, text.len().into());
    response
}
