//! The part of ONNX's protobuf schema that is written and read here, after `onnx/onnx.proto` of onnx 1.23 (IR version 9).
//!
//! Fields that are neither written nor looked at are left out, and decoding skips them: a graph that somebody else wrote must be
//! copied byte for byte, never encoded again.

use bytes::Bytes;

/// `TensorProto.DataType`, the types met in encoders.
pub mod data_type {
    /// 32-bit floating point.
    pub const FLOAT: i32 = 1;
    /// Unsigned 8-bit integer.
    pub const UINT8: i32 = 2;
    /// Signed 8-bit integer.
    pub const INT8: i32 = 3;
    /// Signed 32-bit integer.
    pub const INT32: i32 = 6;
    /// Signed 64-bit integer.
    pub const INT64: i32 = 7;
    /// Truth values.
    pub const BOOL: i32 = 9;
    /// 16-bit floating point.
    pub const FLOAT16: i32 = 10;
}

/// A whole file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Model {
    /// Version of the file format.
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    /// What wrote the file.
    #[prost(string, tag = "2")]
    pub producer_name: String,
    /// Its version.
    #[prost(string, tag = "3")]
    pub producer_version: String,
    /// The computation.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    /// Which version of each operator set.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSet>,
    /// What is said of it by name.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<Entry>,
    /// What a training run would do.
    #[prost(message, repeated, tag = "20")]
    pub training_info: Vec<Training>,
    /// Operators made of nodes.
    #[prost(message, repeated, tag = "25")]
    pub functions: Vec<Function>,
}

/// Graphs that an inference does not run.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Training {
    /// Run before.
    #[prost(message, optional, tag = "1")]
    pub initialization: Option<Graph>,
    /// A step.
    #[prost(message, optional, tag = "2")]
    pub algorithm: Option<Graph>,
}

/// An operator set and its version.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OperatorSet {
    /// Empty for ONNX's own.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// Its version.
    #[prost(int64, tag = "2")]
    pub version: i64,
}

/// An operator made of nodes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Function {
    /// The operator.
    #[prost(string, tag = "1")]
    pub name: String,
    /// In running order.
    #[prost(message, repeated, tag = "7")]
    pub node: Vec<Node>,
    /// The operator's set.
    #[prost(string, tag = "10")]
    pub domain: String,
    /// Settings that a node may leave out.
    #[prost(message, repeated, tag = "11")]
    pub attribute_proto: Vec<Attribute>,
}

/// Nodes, constants, inputs and outputs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Graph {
    /// In running order.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    /// Required, and of no meaning.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The constants.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Tensor>,
    /// What is fed.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    /// What may be fetched.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
    /// Constants that are mostly zeros.
    #[prost(message, repeated, tag = "15")]
    pub sparse_initializer: Vec<SparseTensor>,
}

/// One operation.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// Names of values; empty for an optional input left out.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// Names of values.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// For error messages and profiles.
    #[prost(string, tag = "3")]
    pub name: String,
    /// The operator.
    #[prost(string, tag = "4")]
    pub op_type: String,
    /// Its fixed settings.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
    /// The operator's set; empty for ONNX's own.
    #[prost(string, tag = "7")]
    pub domain: String,
}

/// `AttributeProto.AttributeType`, the types that are written.
pub mod attribute_type {
    /// [`f`](super::Attribute::f) holds the value.
    pub const FLOAT: i32 = 1;
    /// [`i`](super::Attribute::i) holds the value.
    pub const INT: i32 = 2;
    /// [`g`](super::Attribute::g) holds the value.
    pub const GRAPH: i32 = 5;
}

/// A fixed setting of an operation.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attribute {
    /// The setting.
    #[prost(string, tag = "1")]
    pub name: String,
    /// A number.
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    /// An integer.
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    /// A constant.
    #[prost(message, optional, tag = "5")]
    pub t: Option<Tensor>,
    /// A branch or a loop's body.
    #[prost(message, optional, tag = "6")]
    pub g: Option<Graph>,
    /// Constants.
    #[prost(message, repeated, tag = "10")]
    pub tensors: Vec<Tensor>,
    /// Branches.
    #[prost(message, repeated, tag = "11")]
    pub graphs: Vec<Graph>,
    /// One of [`attribute_type`].
    #[prost(int32, tag = "20")]
    pub r#type: i32,
    /// A constant that is mostly zeros.
    #[prost(message, optional, tag = "22")]
    pub sparse_tensor: Option<SparseTensor>,
    /// Constants that are mostly zeros.
    #[prost(message, repeated, tag = "23")]
    pub sparse_tensors: Vec<SparseTensor>,
}

/// A constant. Its values are in one of the fields, or in another file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tensor {
    /// The shape; empty for a single value.
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    /// One of [`data_type`].
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    /// The value's name.
    #[prost(string, tag = "8")]
    pub name: String,
    /// Little-endian values. Shared with the buffer it was decoded from, not copied: it may be gigabytes.
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub raw_data: Option<Bytes>,
    /// `location`, `offset` and `length` of values in another file.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<Entry>,
    /// [`EXTERNAL`] if [`external_data`](Self::external_data) counts.
    #[prost(int32, optional, tag = "14")]
    pub data_location: Option<i32>,
}

/// A constant that is mostly zeros.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SparseTensor {
    /// What is not zero.
    #[prost(message, optional, tag = "1")]
    pub values: Option<Tensor>,
    /// Where.
    #[prost(message, optional, tag = "2")]
    pub indices: Option<Tensor>,
}

/// `TensorProto.DataLocation.EXTERNAL`: the values lie in another file.
pub const EXTERNAL: i32 = 1;

/// A key and its value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// The key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value, numbers in decimal.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Name and type of an input or output.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValueInfo {
    /// The value.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its type.
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<ValueType>,
}

/// A value's type; only tensors are met.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValueType {
    /// The tensor's type.
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorType>,
}

/// Element type and shape.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorType {
    /// One of [`data_type`].
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    /// Unknown if absent.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

/// A shape.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Shape {
    /// Outermost first.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

/// One dimension.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Dimension {
    /// A number, or a name for what is known only when it runs.
    #[prost(oneof = "Extent", tags = "1, 2")]
    pub value: Option<Extent>,
}

/// How long a dimension is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Extent {
    /// Always this long.
    #[prost(int64, tag = "1")]
    Fixed(i64),
    /// The same wherever the name stands.
    #[prost(string, tag = "2")]
    Named(String),
}

impl ValueInfo {
    /// A tensor of `data_type`, its dimensions given by name or by number.
    pub fn tensor(name: &str, data_type: i32, shape: impl IntoIterator<Item = Extent>) -> Self {
        let dim = shape.into_iter().map(|extent| Dimension { value: Some(extent) }).collect();
        let tensor_type = TensorType { elem_type: data_type, shape: Some(Shape { dim }) };
        Self { name: name.to_owned(), r#type: Some(ValueType { tensor_type: Some(tensor_type) }) }
    }
}

impl From<&str> for Extent {
    fn from(name: &str) -> Self {
        Self::Named(name.to_owned())
    }
}

impl From<usize> for Extent {
    fn from(length: usize) -> Self {
        Self::Fixed(length as i64)
    }
}

impl Attribute {
    /// An attribute that is a number.
    pub fn float(name: &str, value: f32) -> Self {
        Self { name: name.to_owned(), f: Some(value), r#type: attribute_type::FLOAT, ..Self::default() }
    }

    /// An attribute that is an integer.
    pub fn int(name: &str, value: i64) -> Self {
        Self { name: name.to_owned(), i: Some(value), r#type: attribute_type::INT, ..Self::default() }
    }
}
