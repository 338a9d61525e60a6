use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use futures_util::FutureExt;
use jsonrpsee::types::ErrorObjectOwned;

use super::*;

/// A guard against hanging, longer than anything here takes.
const GUARD: Duration = Duration::from_secs(60);

async fn guarded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future).await.expect("it hangs")
}

/// Occupies the pool's only thread until the sender is used; returns once the thread has begun.
async fn occupy(
    pool: &CallPool,
) -> (mpsc::Sender<()>, impl Future<Output = Result<(), CallError>> + Unpin) {
    let (go, wait) = mpsc::channel::<()>();
    let (started, running) = oneshot::channel();
    let mut call = Box::pin(pool.run_within(GUARD, move || {
        let _ = started.send(());
        wait.recv_timeout(GUARD).map_err(|_| CallError::Internal)
    }));
    assert!((&mut call).now_or_never().is_none());
    guarded(running).await.unwrap();
    (go, call)
}

#[tokio::test]
async fn too_many_calls_are_refused() {
    let pool = CallPool::new(NonZeroUsize::MIN, 1, GUARD).unwrap();
    let (go, first) = occupy(&pool).await;
    let mut second = pin!(pool.run(|| Ok(2)));
    assert!(second.as_mut().now_or_never().is_none());
    assert_eq!(guarded(pool.run(|| Ok(3))).await, Err(CallError::Busy));
    go.send(()).unwrap();
    assert_eq!(guarded(first).await, Ok(()));
    assert_eq!(guarded(second).await, Ok(2));
    let error = ErrorObjectOwned::from(CallError::Busy);
    assert_eq!(error.code(), -32005);
}

#[tokio::test]
async fn one_that_waited_too_long_or_left_is_not_run() {
    let pool = CallPool::new(NonZeroUsize::MIN, 8, GUARD).unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let count = || {
        let ran = Arc::clone(&ran);
        move || Ok(ran.fetch_add(1, Ordering::Relaxed))
    };
    let (go, first) = occupy(&pool).await;
    let patience = Duration::from_millis(1);
    let mut late = pin!(pool.run_within(patience, count()));
    assert!(late.as_mut().now_or_never().is_none());
    assert!(pool.run(count()).now_or_never().is_none());
    // At least so long, on any machine.
    tokio::time::sleep(2 * patience).await;
    go.send(()).unwrap();
    assert_eq!(guarded(first).await, Ok(()));
    assert_eq!(guarded(late).await, Err(CallError::Busy));
    assert_eq!(guarded(pool.run(count())).await, Ok(0), "neither of them was run");
}

#[tokio::test]
async fn a_panic_is_survived() {
    let pool = CallPool::new(NonZeroUsize::MIN, 8, GUARD).unwrap();
    let panicked = guarded(pool.run(|| -> Result<(), CallError> { panic!("as intended") })).await;
    assert_eq!(panicked, Err(CallError::Internal));
    assert_eq!(guarded(pool.run(|| Ok(1))).await, Ok(1));
}
