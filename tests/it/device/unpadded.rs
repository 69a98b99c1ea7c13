//! The form of a compiled graph for CUDA, as far as a processor can tell: the runtime takes every operator of it but the one that has a
//! kernel on GPUs alone, and pools as the file does.

use sextant::engine::{Batch, Form, Output, Pooling, Session, SessionOptions};
use sextant::repository::manifest::Precision;

use crate::import::import_tiny;
use crate::support::backend;
use crate::support::checkpoint::TinyCheckpoint;

#[test]
fn the_processor_lacks_its_attention_and_nothing_else() {
    for precision in [Precision::Fp32, Precision::Fp16] {
        let version = import_tiny(&TinyCheckpoint::bert(), precision);
        let options = SessionOptions { form: Form::Unpadded, ..SessionOptions::cpu(1, false) };
        let loaded = Session::load(&backend(), &version.path().join("model.onnx"), Pooling::Mean, options);
        let error = loaded.err().unwrap().to_string();
        // Types and shapes are checked before kernels are looked for.
        assert!(
            [
                "Could not find an implementation for PackedMultiHeadAttention",
                "Failed to find kernel for com.microsoft.PackedMultiHeadAttention"
            ]
            .iter()
            .any(|said| error.contains(said)),
            "{error}"
        );
    }
}

#[test]
fn memory_is_given_back_and_vectors_are_the_same_after_it() {
    let version = import_tiny(&TinyCheckpoint::bert(), Precision::Fp32);
    let mut session = version.session(Pooling::Mean, 1);
    let batch = Batch { rows: vec![version.ids("the cat runs")], output: Output::Pooled, ..Batch::default() };
    let before = session.run(&batch).unwrap();
    session.shrink().unwrap();
    assert_eq!(session.run(&batch).unwrap(), before);
}
