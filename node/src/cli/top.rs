//! `fragcast top`: a running node in the terminal, as its live page shows it.
//!
//! It asks the node for its picture (`fragcast_live`) again and again, and draws what it is told. A
//! node that does not answer is said to be away, with the last picture that it gave.

mod screen;

use std::io::{IsTerminal as _, stdin, stdout};
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fragcast_upstream::http::{self, HttpClient};
use fragcast_upstream::jsonrpc::Request;
use ratatui_core::backend::Backend;
use ratatui_core::terminal::Terminal;
use ratatui_termion::TermionBackend;
use ratatui_termion::termion::event::Key;
use ratatui_termion::termion::input::TermRead as _;
use ratatui_termion::termion::raw::IntoRawMode as _;
use ratatui_termion::termion::screen::IntoAlternateScreen as _;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use screen::Seen;

/// The longest picture that is read: one of 1,024 members is 200 kB.
const MAX_PICTURE: usize = 4 * 1024 * 1024;

/// Arguments of `fragcast top`.
#[derive(Debug, clap::Args)]
pub(super) struct TopArgs {
    /// The node's public JSON-RPC.
    #[arg(long, env = "FRAGCAST_RPC", default_value = "http://127.0.0.1:9320")]
    rpc: String,
    /// Milliseconds between two looks at the node.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    interval_ms: u64,
}

/// Asks a node for its picture.
async fn ask(client: &HttpClient, rpc: &str) -> Result<Value, String> {
    let body =
        Request::new("fragcast_live", [(); 0]).to_vec().map_err(|error| error.to_string())?;
    let (code, answer) =
        client.post_json(rpc, None, body).await.map_err(|error| error.to_string())?;
    let answer: Value = serde_json::from_slice(&answer)
        .map_err(|_| format!("it answers {code}, and no JSON: is that a node's JSON-RPC?"))?;
    match (answer.get("result"), answer.get("error")) {
        (Some(picture @ Value::Object(_)), _) => Ok(picture.clone()),
        (_, Some(error)) if error["code"] == -32_601 => {
            Err("it does not know fragcast_live: it is an older build, or no node".into())
        }
        (_, Some(error)) => Err(format!("it answers: {}", error["message"])),
        _ => Err("its answer has no result: is that a node?".into()),
    }
}

/// What a key or a signal asks for.
#[derive(Debug, Clone, Copy)]
enum Wish {
    End,
    Pause,
    Redraw,
}

/// Reads keys on a thread of their own, which waits for the terminal.
fn keys(wishes: &mpsc::UnboundedSender<Wish>) {
    for key in stdin().keys() {
        let wish = match key {
            Ok(Key::Char('q') | Key::Esc | Key::Ctrl('c' | 'd')) | Err(_) => Wish::End,
            Ok(Key::Char('p' | ' ')) => Wish::Pause,
            Ok(_) => Wish::Redraw,
        };
        if wishes.send(wish).is_err() {
            return;
        }
    }
    // The terminal has gone.
    let _ = wishes.send(Wish::End);
}

/// Resolves when the process is told to end; keys do not come as signals here.
async fn ended() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = hang_up.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Shows a node until it is told to end.
pub(super) async fn top(args: TopArgs) -> anyhow::Result<i32> {
    http::check_url(&args.rpc).context("--rpc")?;
    if !stdout().is_terminal() || !stdin().is_terminal() {
        bail!(
            "top needs a terminal: `fragcast status --rpc {}` writes to a pipe",
            http::shown(&args.rpc)
        );
    }
    let screen = stdout().into_raw_mode()?.into_alternate_screen()?;
    let mut terminal = Terminal::new(TermionBackend::new(screen))?;
    let (sender, mut wishes) = mpsc::unbounded_channel();
    std::thread::Builder::new().name("keys".into()).spawn(move || keys(&sender))?;
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let client = HttpClient { timeout: Duration::from_secs(2), max_response: MAX_PICTURE };
    let interval = Duration::from_millis(args.interval_ms);
    let seen = Seen::new(&http::shown(&args.rpc), colours);
    watch(&mut terminal, seen, interval, &mut wishes, ended(), || ask(&client, &args.rpc)).await?;
    terminal.show_cursor()?;
    Ok(0)
}

/// Asks and draws until a key or a signal ends it.
async fn watch<B, F>(
    terminal: &mut Terminal<B>,
    mut seen: Seen,
    interval: Duration,
    wishes: &mut mpsc::UnboundedReceiver<Wish>,
    ended: impl Future<Output = std::io::Result<()>>,
    ask: impl Fn() -> F,
) -> anyhow::Result<()>
where
    B: Backend<Error: Send + Sync + 'static>,
    F: Future<Output = Result<Value, String>>,
{
    let mut ended = pin!(ended);
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Keys count, and times go on, while an answer is waited for.
    let mut asked: Option<Pin<Box<F>>> = None;
    loop {
        terminal.draw(|frame| seen.draw(frame.area(), frame.buffer_mut(), Instant::now()))?;
        let answer = async {
            match &mut asked {
                Some(answer) => answer.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            wish = wishes.recv() => match wish.unwrap_or(Wish::End) {
                Wish::End => return Ok(()),
                Wish::Pause => {
                    seen.is_paused = !seen.is_paused;
                    asked = None;
                }
                Wish::Redraw => {}
            },
            answer = answer => {
                asked = None;
                seen.take(answer, Instant::now());
            }
            _ = tick.tick() => if !seen.is_paused && asked.is_none() {
                asked = Some(Box::pin(ask()));
            },
            _ = &mut ended => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ratatui_core::backend::TestBackend;
    use serde_json::json;

    use super::*;

    /// A guard against hanging: no test waits for it.
    const GUARD: Duration = Duration::from_secs(30);

    /// Runs `top` on a screen of 80 by 24 with these wishes; whether it ends, and what is drawn.
    async fn ends<F>(wishes: &[Wish], interval: Duration, ask: impl Fn() -> F) -> (bool, String)
    where
        F: Future<Output = Result<Value, String>>,
    {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let (sender, mut receiver) = mpsc::unbounded_channel();
        wishes.iter().for_each(|wish| sender.send(*wish).unwrap());
        let seen = Seen::new("http://127.0.0.1:1", false);
        let top = watch(&mut terminal, seen, interval, &mut receiver, pending(), ask);
        let ended = tokio::time::timeout(GUARD, top).await.is_ok_and(|ended| ended.is_ok());
        (ended, terminal.backend().to_string())
    }

    #[tokio::test]
    async fn keys_count_while_a_node_does_not_answer() {
        let (ended, drawn) =
            ends(&[Wish::Redraw, Wish::End], Duration::from_millis(100), pending).await;
        assert!(ended, "{drawn}");
        assert!(drawn.contains("waiting for its first answer"), "{drawn}");
        let wishes = [Wish::Pause, Wish::End];
        let (ended, drawn) = ends(&wishes, Duration::from_millis(100), pending).await;
        assert!(ended && drawn.contains("paused"), "{drawn}");
    }

    #[tokio::test]
    async fn a_node_is_asked_again_and_again_until_the_end() {
        let asked = AtomicUsize::new(0);
        let (sender, mut wishes) = mpsc::unbounded_channel();
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let ask = || {
            if asked.fetch_add(1, Ordering::Relaxed) == 2 {
                sender.send(Wish::End).unwrap();
            }
            ready(Ok(json!({ "node": { "short": "0123" } })))
        };
        let seen = Seen::new("http://127.0.0.1:1", false);
        let top = watch(&mut terminal, seen, Duration::from_millis(1), &mut wishes, pending(), ask);
        tokio::time::timeout(GUARD, top).await.unwrap().unwrap();
        assert!(terminal.backend().to_string().contains("0123"));
    }
}
