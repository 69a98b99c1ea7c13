//! Which session a batch runs on. The shared ones pool by the mean and the one for lone batches takes the first token, so
//! that a vector tells where it was made.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sextant::engine::{Batch, Engine, Pooling, Vector};
use sextant::repository::manifest::Precision;
use tower::Service as _;

use crate::import::import_tiny;
use crate::support::checkpoint::TinyCheckpoint;

/// For so long a batch remembers that it had company.
const MOMENT: Duration = Duration::from_millis(100);
/// It has forgotten.
const LATELY: Duration = Duration::from_millis(110);

async fn run(engine: &mut Engine, ids: &Arc<[u32]>, lone: bool) -> Vector {
    poll_fn(|context| engine.poll_ready(context)).await.unwrap();
    let batch = Batch { rows: vec![Arc::clone(ids)], lone, ..Batch::default() };
    engine.call(batch).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_lone_batch_has_a_session_of_its_own_while_nothing_else_runs_or_ran_lately() {
    let version = import_tiny(&TinyCheckpoint::bert(), Precision::Fp32);
    let ids = version.ids("the cat runs");
    let shared = || version.session(Pooling::Mean, 1);
    let lone = version.session(Pooling::Cls, 2);
    let mut engine = Engine::start("t", vec![shared(), shared()], Some(lone)).unwrap();
    let by_lone = run(&mut engine, &ids, true).await;
    assert_eq!(run(&mut engine, &ids, true).await, by_lone, "again: its permit came back");
    let by_shared = run(&mut engine, &ids, false).await;
    assert_ne!(by_shared, by_lone);
    // Others were waiting a moment ago: more will come. A busy machine may need longer than the moment, and then says nothing.
    loop {
        let before = Instant::now();
        run(&mut engine, &ids, false).await;
        let lately = run(&mut engine, &ids, true).await;
        if before.elapsed() < MOMENT {
            assert_eq!(lately, by_shared);
            break;
        }
    }
    tokio::time::sleep(LATELY).await;
    assert_eq!(run(&mut engine, &ids, true).await, by_lone);

    // Somebody else is about to run: the machine is shared from now on.
    let mut other = engine.clone();
    poll_fn(|context| other.poll_ready(context)).await.unwrap();
    assert_eq!(run(&mut engine, &ids, true).await, by_shared);
    drop(other);
    tokio::time::sleep(LATELY).await;
    assert_eq!(run(&mut engine, &ids, true).await, by_lone);

    let mut without = Engine::start("t", vec![shared()], None).unwrap();
    assert_eq!(run(&mut without, &ids, true).await, by_shared);
}
