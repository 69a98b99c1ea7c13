//! The forms of a compiled graph for GPUs, as far as a processor can tell: the runtime takes types and shapes, finds no kernel for the attention
//! that has one on GPUs alone, and pools as the file does.

use sextant::engine::{Batch, Form, Output, Pooling, Session, SessionError, SessionOptions};
use sextant::repository::manifest::Precision;

use crate::import::{Imported, import_tiny};
use crate::support::backend;
use crate::support::checkpoint::TinyCheckpoint;

fn session(version: &Imported, form: Form, pooling: Pooling) -> Result<Session, SessionError> {
    let options = SessionOptions { form, ..SessionOptions::cpu(1, false) };
    Session::load(&backend(), &version.path().join("model.onnx"), pooling, options)
}

#[test]
fn pooled_without_a_matrix_vectors_are_the_same() {
    for precision in [Precision::Fp32, Precision::Fp16] {
        let version = import_tiny(&TinyCheckpoint::bert(), precision);
        let texts = ["the cat runs", "a", "the dog and the cat run and run"];
        let rows = texts.iter().map(|text| version.ids(text)).collect();
        let batch = Batch { rows, output: Output::Pooled, ..Batch::default() };
        for pooling in [Pooling::Mean, Pooling::Cls, Pooling::LastToken] {
            let [file, gathered] = [Form::File, Form::Gathered]
                .map(|form| session(&version, form, pooling).unwrap().run(&batch).unwrap());
            assert_eq!((file.len(), file[0].len()), (3, gathered[0].len()));
            let pairs = file.iter().flatten().zip(gathered.iter().flatten());
            let largest = pairs.map(|(file, gathered)| (file - gathered).abs()).fold(0.0, f32::max);
            assert!(largest < 1e-5, "{pooling:?}: {largest}");
        }
    }
}

#[test]
fn the_processor_lacks_its_attention() {
    for precision in [Precision::Fp32, Precision::Fp16] {
        let version = import_tiny(&TinyCheckpoint::bert(), precision);
        let loaded = session(&version, Form::Unpadded, Pooling::Mean);
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
fn after_memory_was_given_back_vectors_are_the_same() {
    let version = import_tiny(&TinyCheckpoint::bert(), Precision::Fp32);
    let mut session = version.session(Pooling::Mean, 1);
    let batch = Batch { rows: vec![version.ids("the cat runs")], output: Output::Pooled, ..Batch::default() };
    let before = session.run(&batch).unwrap();
    session.shrink().unwrap();
    assert_eq!(session.run(&batch).unwrap(), before);
}
