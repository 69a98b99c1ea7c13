//! Which provider has which nodes of a session's graph, as the runtime itself tells: a provider that is asked for and cannot compute a
//! node leaves it to the processor without a word.
#![expect(unsafe_code, reason = "the crate has no safe way to ask; the functions only read from the session")]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::{ptr, slice};

use ort::AsPointer as _;
use ort::sys::{OrtEpAssignedNode, OrtEpAssignedSubgraph, OrtStatusPtr};

use super::Device;

/// The setting without which the runtime does not remember.
pub(super) const RECORD: (&str, &str) = ("session.record_ep_graph_assignment_info", "1");

/// Nodes by operator, for each provider.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement(BTreeMap<String, BTreeMap<String, usize>>);

impl Placement {
    /// Where the nodes of `session` lie. It must have been made with [`RECORD`].
    pub(super) fn of(session: &ort::session::Session) -> ort::Result<Self> {
        let mut placement = Self::default();
        for &part in parts(session)? {
            let provider = text(|name| {
                // SAFETY: `part` belongs to the session, which outlives this function; `name` is where the text goes.
                unsafe { (ort::api().EpAssignedSubgraph_GetEpName)(part, name) }
            })?;
            let operators = placement.0.entry(provider).or_default();
            for &node in nodes(session, part)? {
                let operator = text(|name| {
                    // SAFETY: as above.
                    unsafe { (ort::api().EpAssignedNode_GetOperatorType)(node, name) }
                })?;
                *operators.entry(operator).or_default() += 1;
            }
        }
        Ok(placement)
    }

    /// How many nodes each provider has.
    pub fn nodes(&self) -> BTreeMap<&str, usize> {
        self.0.iter().map(|(provider, operators)| (provider.as_str(), operators.values().sum())).collect()
    }

    /// The matrix products and attention that `device` does not have and should, as `3 MatMul on CPUExecutionProvider`. A GPU that has none of
    /// them is asked in vain: what is left, shapes and look-ups, is rightly the processor's.
    ///
    /// TensorRT leaves to CUDA what its compiler does not know, ONNX Runtime's own operators above all: there that is enough, as long as it
    /// has something itself.
    pub fn strays(&self, device: Device) -> Option<String> {
        let own = device.execution_provider();
        let is_right = |provider: &str| {
            provider == own
                || matches!(device, Device::TensorRt(_)) && provider == Device::Cuda(0).execution_provider()
        };
        let heavy = self.0.iter().flat_map(|(provider, operators)| {
            let heavy = operators.iter().filter(|(operator, _)| is_heavy(operator));
            heavy.map(move |(operator, count)| {
                (provider.as_str(), format!("{count} {operator} on {provider}"))
            })
        });
        let (right, wrong): (Vec<_>, Vec<_>) = heavy.partition(|(provider, _)| is_right(provider));
        let none_is_own = !right.iter().any(|(provider, _)| *provider == own);
        let strays = if none_is_own { wrong.into_iter().chain(right).collect() } else { wrong };
        let strays: Vec<String> = strays.into_iter().map(|(_, stray)| stray).collect();
        (!strays.is_empty()).then(|| strays.join(", "))
    }
}

/// Whether an operator does the work for which a GPU is asked: `MatMul`, `Gemm` and attention in all their forms.
fn is_heavy(operator: &str) -> bool {
    ["MatMul", "Gemm", "Attention"].iter().any(|part| operator.contains(part))
}

/// What the runtime made of the graph, provider by provider. They live as long as the session.
fn parts(session: &ort::session::Session) -> ort::Result<&[*const OrtEpAssignedSubgraph]> {
    list(session, |parts, count| {
        // SAFETY: the session lives, and the other pointers are where the answer goes.
        unsafe { (ort::api().Session_GetEpGraphAssignmentInfo)(session.ptr(), parts, count) }
    })
}

/// The nodes of a part of `session`. They live as long as it does.
fn nodes(
    session: &ort::session::Session,
    part: *const OrtEpAssignedSubgraph,
) -> ort::Result<&[*const OrtEpAssignedNode]> {
    list(session, |nodes, count| {
        // SAFETY: `part` belongs to a session that lives.
        unsafe { (ort::api().EpAssignedSubgraph_GetNodes)(part, nodes, count) }
    })
}

/// A list that is the session's.
fn list<T>(
    _of: &ort::session::Session,
    ask: impl FnOnce(*mut *const *const T, *mut usize) -> OrtStatusPtr,
) -> ort::Result<&[*const T]> {
    let (mut first, mut count) = (ptr::null(), 0);
    let status = ask(&raw mut first, &raw mut count);
    // SAFETY: the status is the runtime's own and used once.
    unsafe { ort::Error::result_from_status(status) }?;
    if count == 0 {
        return Ok(&[]);
    }
    // SAFETY: the runtime says that there are so many, in memory that is the session's.
    Ok(unsafe { slice::from_raw_parts(first, count) })
}

fn text(ask: impl FnOnce(*mut *const c_char) -> OrtStatusPtr) -> ort::Result<String> {
    let mut text = ptr::null();
    let status = ask(&raw mut text);
    // SAFETY: the status is the runtime's own and used once; where it is good the text is one that ends, and the session's.
    unsafe {
        ort::Error::result_from_status(status)?;
        Ok(CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(nodes: &[(&str, &str, usize)]) -> Placement {
        let mut placement = Placement::default();
        for (provider, operator, count) in nodes {
            placement.0.entry((*provider).to_owned()).or_default().insert((*operator).to_owned(), *count);
        }
        placement
    }

    #[test]
    fn shapes_may_stay_on_the_processor_and_products_may_not() {
        let (cuda, cpu) = ("CUDAExecutionProvider", "CPUExecutionProvider");
        let good = placement(&[(cuda, "Gemm", 24), (cuda, "MultiHeadAttention", 6), (cpu, "Shape", 3)]);
        assert_eq!(good.strays(Device::Cuda(0)), None);
        assert_eq!(good.nodes(), BTreeMap::from([(cuda, 30), (cpu, 3)]));
        let int8 = placement(&[(cuda, "Gather", 2), (cpu, "MatMulIntegerToFloat", 24), (cpu, "Gather", 9)]);
        let strays = int8.strays(Device::Cuda(0)).unwrap();
        assert_eq!(strays, "24 MatMulIntegerToFloat on CPUExecutionProvider");
        assert_eq!(int8.strays(Device::Cpu), None);
        let left = good.strays(Device::TensorRt(0)).unwrap();
        assert_eq!(left, "24 Gemm on CUDAExecutionProvider, 6 MultiHeadAttention on CUDAExecutionProvider");
        let compiled =
            placement(&[("TensorrtExecutionProvider", "MatMul", 24), (cuda, "MultiHeadAttention", 6)]);
        assert_eq!(compiled.strays(Device::TensorRt(0)), None);
    }
}
