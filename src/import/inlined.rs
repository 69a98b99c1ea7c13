//! How many nodes a graph has when every call of a function that its file defines is replaced by the function's nodes, as ONNX Runtime does
//! before anything else. Counted without doing it: ten functions, each of which calls the next ten times, make ten billion nodes of a hundred.

use std::collections::HashMap;

use crate::onnx::{Attribute, Function, Graph, Model, Node};

/// Nodes of a graph. The largest encoders that are exported have about 10,000.
const MOST_NODES: u64 = 200_000;
/// Functions and branches that lie in one another.
const MOST_DEPTH: usize = 100;

/// Refuses a graph with more nodes than any encoder has, or with a function that calls itself.
///
/// # Errors
/// In a sentence.
pub(super) fn check(model: &Model) -> Result<(), String> {
    let mut count = Count::new(&model.functions);
    let size = model.graph.as_ref().map_or(Ok(Size::default()), |graph| count.graph(graph, 0))?;
    if size.nodes <= MOST_NODES {
        return Ok(());
    }
    Err(format!(
        "its graph has {} nodes once its functions are put in place, and at most {MOST_NODES} are taken: no encoder has as many; export it \
         without functions that call each other over and over",
        size.nodes
    ))
}

#[derive(Debug, Clone, Copy, Default)]
struct Size {
    /// [`u64::MAX`] stands for more.
    nodes: u64,
    /// How many functions and branches lie in one another.
    depth: usize,
}

impl Size {
    /// Both, beside each other.
    fn and(self, other: Self) -> Self {
        Self { nodes: self.nodes.saturating_add(other.nodes), depth: self.depth.max(other.depth) }
    }
}

/// Domain and operator.
type Name<'a> = (&'a str, &'a str);

/// Counts each function once.
struct Count<'a> {
    /// Several of one name are told apart by their overload; the largest counts for all.
    functions: HashMap<Name<'a>, Vec<&'a Function>>,
    /// None while it is being counted.
    known: HashMap<Name<'a>, Option<Size>>,
}

impl<'a> Count<'a> {
    fn new(all: &'a [Function]) -> Self {
        let mut functions: HashMap<_, Vec<_>> = HashMap::new();
        for function in all {
            functions.entry(name(&function.domain, &function.name)).or_default().push(function);
        }
        Self { functions, known: HashMap::new() }
    }

    /// `depth` is how deep it lies.
    fn graph(&mut self, graph: &'a Graph, depth: usize) -> Result<Size, String> {
        self.nodes(&graph.node, depth)
    }

    fn nodes(&mut self, nodes: &'a [Node], depth: usize) -> Result<Size, String> {
        if depth > MOST_DEPTH {
            return Err(too_deep());
        }
        nodes.iter().try_fold(Size::default(), |before, node| Ok(before.and(self.node(node, depth)?)))
    }

    fn node(&mut self, node: &'a Node, depth: usize) -> Result<Size, String> {
        let one = Size { nodes: 1, depth: 0 };
        let branches = self.branches(&node.attribute, depth)?;
        let called = self.function(name(&node.domain, &node.op_type), depth)?;
        Ok(one.and(branches).and(copied(called, branches)))
    }

    /// The graphs that attributes hold.
    fn branches(&mut self, attributes: &'a [Attribute], depth: usize) -> Result<Size, String> {
        let mut graphs = attributes.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
        graphs.try_fold(Size::default(), |before, graph| {
            let size = self.graph(graph, depth + 1)?;
            Ok(before.and(Size { depth: size.depth + 1, ..size }))
        })
    }

    /// Of no size if the file defines none of this name: then it is an operator of the runtime's.
    fn function(&mut self, name: Name<'a>, depth: usize) -> Result<Size, String> {
        let Some(all) = self.functions.get(&name).cloned() else { return Ok(Size::default()) };
        let size = match self.known.get(&name) {
            Some(Some(size)) => *size,
            Some(None) => return Err(format!("its function `{}` calls itself", name.1)),
            None => {
                self.known.insert(name, None);
                let mut largest = Size::default();
                for function in all {
                    let body = self.nodes(&function.node, depth + 1)?;
                    let branches = self.branches(&function.attribute_proto, depth + 1)?;
                    let size = copied(body, branches);
                    largest = Size {
                        nodes: largest.nodes.max(size.nodes),
                        depth: largest.depth.max(size.depth + 1),
                    };
                }
                self.known.insert(name, Some(largest));
                largest
            }
        };
        if depth + size.depth > MOST_DEPTH { Err(too_deep()) } else { Ok(size) }
    }
}

/// A function with the branches that its call hands to it: each of its nodes may hold a copy of them.
fn copied(function: Size, branches: Size) -> Size {
    Size {
        nodes: function.nodes.saturating_mul(branches.nodes.saturating_add(1)),
        depth: function.depth + branches.depth,
    }
}

/// ONNX's own operators have two names of one domain.
fn name<'a>(domain: &'a str, operator: &'a str) -> Name<'a> {
    (if domain == "ai.onnx" { "" } else { domain }, operator)
}

fn too_deep() -> String {
    format!("its functions and branches lie in one another more than {MOST_DEPTH} deep")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(operator: &str) -> Node {
        Node { op_type: operator.to_owned(), ..Node::default() }
    }

    fn calls(operator: &str, times: usize) -> Vec<Node> {
        vec![node(operator); times]
    }

    fn function(name: &str, node: Vec<Node>) -> Function {
        Function { name: name.to_owned(), node, ..Function::default() }
    }

    /// The nodes of a graph that has `node`, with these functions.
    fn counted(node: Vec<Node>, functions: Vec<Function>) -> Result<u64, String> {
        let graph = Graph { node, ..Graph::default() };
        Count::new(&functions).graph(&graph, 0).map(|size| size.nodes)
    }

    fn branch(nodes: Vec<Node>) -> Attribute {
        Attribute { g: Some(Graph { node: nodes, ..Graph::default() }), ..Attribute::default() }
    }

    /// `levels` functions, each of which calls the next ten times.
    fn nested(levels: usize) -> Vec<Function> {
        let last = function("f0", calls("Identity", 10));
        let of = |level: usize| function(&format!("f{level}"), calls(&format!("f{}", level - 1), 10));
        std::iter::once(last).chain((1..levels).map(of)).collect()
    }

    #[test]
    fn each_call_counts_with_the_nodes_of_its_function() {
        assert_eq!(counted(calls("Add", 3), vec![]), Ok(3));
        // The call itself, and ten nodes for it.
        assert_eq!(counted(calls("f0", 2), nested(1)), Ok(2 * 11));
        assert_eq!(counted(calls("f1", 1), nested(2)), Ok(1 + 10 * 11));
        // Not called.
        assert_eq!(counted(calls("Add", 1), nested(9)), Ok(1));
    }

    #[test]
    fn nodes_of_branches_count_and_are_copied_into_the_functions_that_get_them() {
        let with = |operator: &str, nodes| Node { attribute: vec![branch(nodes)], ..node(operator) };
        assert_eq!(counted(vec![with("If", calls("Add", 4))], vec![]), Ok(5));
        assert_eq!(counted(vec![with("If", calls("f0", 1))], nested(1)), Ok(1 + 11));
        assert_eq!(counted(vec![with("f0", calls("Add", 4))], nested(1)), Ok(1 + 4 + 10 * 5));
    }

    #[test]
    fn functions_that_explode_are_refused_and_never_built() {
        let model = |nodes, functions| Model {
            graph: Some(Graph { node: nodes, ..Graph::default() }),
            functions,
            ..Model::default()
        };
        assert_eq!(check(&model(calls("f3", 1), nested(4))), Ok(()), "11,111 nodes");
        let error = check(&model(calls("f9", 1), nested(10))).unwrap_err();
        assert!(error.contains("has 11111111111 nodes"), "{error}");
        let error = check(&model(calls("f59", 1), nested(60))).unwrap_err();
        assert!(error.contains(&format!("has {} nodes", u64::MAX)), "{error}");
        assert!(check(&model(calls("Add", 200_001), vec![])).unwrap_err().contains("has 200001 nodes"));
    }

    #[test]
    fn functions_that_call_themselves_are_refused_whatever_the_domain_is_called() {
        let of = |domain: &str, name: &str, callee: &str| Function {
            domain: domain.to_owned(),
            ..function(name, calls(callee, 1))
        };
        for functions in [
            vec![of("", "f", "f")],
            vec![of("ai.onnx", "f", "f")],
            vec![of("", "f", "g"), of("ai.onnx", "g", "f")],
        ] {
            let error = counted(calls("f", 1), functions).unwrap_err();
            assert!(error.contains("calls itself"), "{error}");
        }
        assert_eq!(counted(calls("f", 1), vec![of("mine", "f", "f")]), Ok(1), "of another domain");
    }

    #[test]
    fn of_several_functions_of_one_name_the_largest_counts() {
        let overloads = vec![function("f", calls("Add", 2)), function("f", calls("Add", 7))];
        assert_eq!(counted(calls("f", 1), overloads), Ok(8));
    }

    #[test]
    fn a_chain_of_functions_is_refused_in_whichever_order_its_links_are_met() {
        let chain = |levels: usize| -> Vec<Function> {
            (0..levels)
                .map(|level| function(&format!("f{}", level + 1), calls(&format!("f{level}"), 1)))
                .collect()
        };
        assert!(counted(calls("f90", 1), chain(90)).is_ok());
        let error = counted(calls("f100000", 1), chain(100_000)).unwrap_err();
        assert!(error.contains("more than 100 deep"), "{error}");
        let from_the_end = (1..=100_000).map(|level| node(&format!("f{level}"))).collect();
        let error = counted(from_the_end, chain(100_000)).unwrap_err();
        assert!(error.contains("more than 100 deep"), "{error}");
    }
}
