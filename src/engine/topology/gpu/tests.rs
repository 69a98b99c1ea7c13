//! The search over GPUs in name, whose speed and memory are functions: nothing is timed.

use std::cell::RefCell;
use std::path::PathBuf;

use super::*;
use crate::engine::{Asked, Runtime};

/// A GPU and a graph on it.
#[derive(Clone)]
struct Machine {
    /// Which forms there are.
    has_unpadded: bool,
    /// How many times as fast the unpadded one is.
    unpadded_gain: f64,
    /// Padded tokens of the batch beyond which none is faster.
    saturates: usize,
    /// Sessions beyond which none more helps.
    useful_sessions: usize,
    /// Padded tokens that fit, of all sessions that run.
    memory: usize,
    /// Sessions that fit.
    fits: usize,
    /// What the unpadded form fails with.
    fails: Option<fn() -> EngineError>,
}

const GOOD: Machine = Machine {
    has_unpadded: true,
    unpadded_gain: 1.5,
    saturates: 16_384,
    useful_sessions: 2,
    memory: usize::MAX,
    fits: usize::MAX,
    fails: None,
};

#[derive(Debug, PartialEq)]
struct Loaded(Device, Form);

fn search(machine: &Machine, devices: &str, wanted: Wanted) -> Result<Found<Loaded>, ChooseError> {
    // Its errors are made by the library.
    Runtime::load(None).unwrap();
    let Ok(Asked::These(devices)) = devices.parse() else { panic!("devices") };
    let loaded = RefCell::new(0);
    let load = |device, form| {
        *loaded.borrow_mut() += 1;
        if *loaded.borrow() > machine.fits {
            let source = ort::Error::new("CUDA failure 2: out of memory");
            return Err(SessionError::OutOfMemory { device, path: PathBuf::new(), source });
        }
        let form = if form == Form::Unpadded && !machine.has_unpadded { Form::File } else { form };
        Ok((form, Loaded(device, form)))
    };
    let speed = |sessions: &mut [Loaded], batches: &[Batch]| {
        let tokens = batches.iter().map(|batch| batch.rows.len() * batch.rows[0].len()).max().unwrap_or(0);
        if tokens * sessions.len() > machine.memory {
            return Err(EngineError::OutOfMemory("CUDA failure 2".to_owned()));
        }
        let is_unpadded = sessions[0].1 == Form::Unpadded;
        if let Some(fails) = machine.fails.filter(|_| is_unpadded) {
            return Err(fails());
        }
        let gain = if is_unpadded { machine.unpadded_gain } else { 1.0 };
        Ok(tokens.min(machine.saturates) as f64 * gain * sessions.len().min(machine.useful_sessions) as f64)
    };
    let rows = Rows { vocabulary: 100, max_tokens: 512 };
    OnGpus { devices: &devices, wanted: &wanted, rows: &rows, load, speed }.run()
}

fn measured() -> Wanted {
    Wanted::measured(NonZeroUsize::MIN)
}

fn found(machine: &Machine) -> (usize, usize, Form) {
    let found = search(machine, "cuda", measured()).unwrap();
    (found.sessions.len(), found.batch_tokens, found.form)
}

#[test]
fn the_faster_form_the_largest_batch_that_pays_and_sessions_that_help_are_found() {
    assert_eq!(found(&GOOD), (2, 16_384, Form::Unpadded));
    assert_eq!(found(&Machine { unpadded_gain: 0.9, ..GOOD }), (2, 16_384, Form::Gathered));
    assert_eq!(found(&Machine { has_unpadded: false, ..GOOD }), (2, 16_384, Form::File));
    assert_eq!(found(&Machine { saturates: 1024, useful_sessions: 9, ..GOOD }), (3, 1024, Form::Unpadded));
    assert_eq!(
        found(&Machine { saturates: usize::MAX, useful_sessions: 1, ..GOOD }),
        (1, 65_536, Form::Unpadded)
    );
}

#[test]
fn what_does_not_fit_into_memory_is_left_out() {
    // Half of what just fits, so that there is room for others.
    assert_eq!(found(&Machine { memory: 9000, useful_sessions: 1, ..GOOD }), (1, 4096, Form::Unpadded));
    // The second session of a batch that fits once.
    assert_eq!(found(&Machine { memory: 17_000, saturates: 16_000, ..GOOD }), (2, 8192, Form::Unpadded));
    assert_eq!(found(&Machine { memory: 100, ..GOOD }), (1, 512, Form::Unpadded));
    // The form to compare with, and more sessions.
    assert_eq!(found(&Machine { fits: 1, unpadded_gain: 0.5, ..GOOD }), (1, 16_384, Form::Unpadded));
    let none = search(&Machine { fits: 0, ..GOOD }, "cuda", measured()).unwrap_err();
    assert!(matches!(none, ChooseError::Session(SessionError::OutOfMemory { .. })), "{none}");
}

#[test]
fn a_form_that_does_not_run_is_not_used_and_a_lost_device_is_told() {
    let broken = || EngineError::NoTokenOutput;
    assert_eq!(found(&Machine { fails: Some(broken), ..GOOD }), (2, 16_384, Form::Gathered));
    let lost = || EngineError::DeviceLost { device: Device::Cuda(0), reason: String::new() };
    let error = search(&Machine { fails: Some(lost), ..GOOD }, "cuda", measured()).unwrap_err();
    assert!(matches!(error, ChooseError::Run(EngineError::DeviceLost { .. })), "{error}");
}

#[test]
fn each_device_has_as_many_and_the_first_ones_are_of_all() {
    let found = search(&GOOD, "cuda:1,cuda:0", measured()).unwrap();
    let devices: Vec<Device> = found.sessions.iter().map(|session| session.0).collect();
    assert_eq!(devices, [1, 0, 1, 0].map(Device::Cuda));
    let wanted =
        Wanted { sessions: NonZeroUsize::new(5), batch_tokens: NonZeroUsize::new(3000), ..measured() };
    let found = search(&GOOD, "cuda:1,cuda:0", wanted).unwrap();
    assert_eq!((found.sessions.len(), found.batch_tokens), (6, 3000), "rounded up to as many for each");
}

#[test]
fn what_another_version_was_found_to_want_is_taken_over() {
    let wanted = Wanted { form: Some(Form::Gathered), ..measured() };
    assert_eq!(search(&GOOD, "cuda", wanted).unwrap().form, Form::Gathered);
    let compiled = search(&GOOD, "tensorrt", measured()).unwrap();
    assert_eq!(compiled.form, Form::File);
}
