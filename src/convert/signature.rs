//! Signatures: the names, types and shapes of a model's inputs and outputs, as TensorFlow Serving lists them at
//! `/v1/models/NAME/metadata`.
//!
//! Conversions read them to decide what a field of CSV is and how rows nest. A model server that lists none, or lists
//! them in a way that cannot be read, leaves the conversions without a signature, never without a response.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The signature that TensorFlow Serving uses for a request that names none.
pub const DEFAULT_NAME: &str = "serving_default";

/// The signatures of one version of a model, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signatures(BTreeMap<String, Arc<Signature>>);

/// What one signature of a model takes and returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The name, such as `serving_default`.
    pub name: String,
    /// The inputs, in the alphabetical order of their names: a signature's map has no order of its own.
    pub inputs: Vec<Tensor>,
    /// The outputs, in the alphabetical order of their names.
    pub outputs: Vec<Tensor>,
}

/// The signature of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// The name to send to TensorFlow Serving; `None`: it takes its default.
    pub name: Option<String>,
    /// The signature, if it is known.
    pub signature: Option<Arc<Signature>>,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    /// The name by which requests and responses know it.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// The size of each dimension, `None` for one of any size. `None` if not even the number of dimensions is known.
    /// The first dimension counts the rows of a batch.
    pub shape: Option<Vec<Option<usize>>>,
    /// Whether TensorFlow 2 exported it, recognized by the name that its exporter gives to placeholders. The graph then
    /// takes tensors of the listed shape only. Graphs of TensorFlow 1 often take others, too, and clients rely on it.
    pub is_strict: bool,
}

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dtype {
    /// IEEE 754, 16 bits.
    Half,
    /// The upper 16 bits of a 32-bit float.
    Bfloat16,
    /// IEEE 754, 32 bits.
    Float,
    /// IEEE 754, 64 bits.
    Double,
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// Unsigned, 8 bits.
    Uint8,
    /// Unsigned, 16 bits.
    Uint16,
    /// Unsigned, 32 bits.
    Uint32,
    /// Unsigned, 64 bits.
    Uint64,
    /// True or false.
    Bool,
    /// Bytes, which may be text.
    String,
    /// Any other type. TensorFlow Serving's JSON API takes none of them.
    Other,
}

/// What a type means for text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number with a fraction; NaN and infinities exist.
    Float,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Bool,
    /// Text or bytes.
    String,
    /// Unknown.
    Other,
}

impl Dtype {
    /// The type with this name in TensorFlow's protocol buffers, such as `DT_FLOAT`.
    pub fn of(name: &str) -> Self {
        match name {
            "DT_HALF" => Self::Half,
            "DT_BFLOAT16" => Self::Bfloat16,
            "DT_FLOAT" => Self::Float,
            "DT_DOUBLE" => Self::Double,
            "DT_INT8" => Self::Int8,
            "DT_INT16" => Self::Int16,
            "DT_INT32" => Self::Int32,
            "DT_INT64" => Self::Int64,
            "DT_UINT8" => Self::Uint8,
            "DT_UINT16" => Self::Uint16,
            "DT_UINT32" => Self::Uint32,
            "DT_UINT64" => Self::Uint64,
            "DT_BOOL" => Self::Bool,
            "DT_STRING" => Self::String,
            _ => Self::Other,
        }
    }

    /// The name that users of TensorFlow know, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Half => "float16",
            Self::Bfloat16 => "bfloat16",
            Self::Float => "float32",
            Self::Double => "float64",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint8 => "uint8",
            Self::Uint16 => "uint16",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Other => "of a type that JSON cannot carry",
        }
    }

    /// What the type means for text.
    pub fn kind(self) -> Kind {
        match self {
            Self::Half | Self::Bfloat16 | Self::Float | Self::Double => Kind::Float,
            Self::Int8
            | Self::Int16
            | Self::Int32
            | Self::Int64
            | Self::Uint8
            | Self::Uint16
            | Self::Uint32
            | Self::Uint64 => Kind::Integer,
            Self::Bool => Kind::Bool,
            Self::String => Kind::String,
            Self::Other => Kind::Other,
        }
    }
}

impl Dtype {
    /// The smallest and the largest number of an integer type. TensorFlow Serving reads 8 and 16 bits as 32 bits and
    /// drops the rest, so numbers must be checked before they are sent.
    pub fn integer_range(self) -> Option<(i128, i128)> {
        let signed = |bits: u32| Some((-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1));
        let unsigned = |bits: u32| Some((0, (1_i128 << bits) - 1));
        match self {
            Self::Int8 => signed(8),
            Self::Int16 => signed(16),
            Self::Int32 => signed(32),
            Self::Int64 => signed(64),
            Self::Uint8 => unsigned(8),
            Self::Uint16 => unsigned(16),
            Self::Uint32 => unsigned(32),
            Self::Uint64 => unsigned(64),
            _ => None,
        }
    }
}

impl Signatures {
    /// Reads the body of TensorFlow Serving's response to `GET /v1/models/NAME/metadata`. `None` if it lists no
    /// signatures in a form that is understood.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let json: Value = serde_json::from_slice(body).ok()?;
        let signatures = json["metadata"]["signature_def"]["signature_def"].as_object()?;
        let signatures = signatures.iter().map(|(name, signature)| {
            let signature = Signature {
                name: name.clone(),
                inputs: tensors(name, &signature["inputs"]),
                outputs: tensors(name, &signature["outputs"]),
            };
            (name.clone(), Arc::new(signature))
        });
        Some(Self(signatures.collect()))
    }

    /// The signature with this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Signature>> {
        self.0.get(name)
    }

    /// The names of all signatures, alphabetically.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The tensors of a signature. `serde_json` keeps members in alphabetical order.
fn tensors(signature: &str, json: &Value) -> Vec<Tensor> {
    let tensors = json.as_object().into_iter().flatten();
    let tensors = tensors.map(|(name, tensor)| Tensor {
        name: name.clone(),
        dtype: Dtype::of(tensor["dtype"].as_str().unwrap_or_default()),
        shape: shape(&tensor["tensor_shape"]),
        is_strict: tensor["name"]
            .as_str()
            .and_then(|node| node.strip_prefix(signature))
            .is_some_and(|rest| rest.starts_with('_')),
    });
    let mut tensors: Vec<_> = tensors.collect();
    tensors.sort_by(|one, other| one.name.cmp(&other.name));
    tensors
}

fn shape(json: &Value) -> Option<Vec<Option<usize>>> {
    if json["unknown_rank"].as_bool() == Some(true) {
        return None;
    }
    let dimensions = match &json["dim"] {
        // Protocol buffers leave out empty lists, for example of a scalar.
        Value::Null if json.is_object() => return Some(Vec::new()),
        dimensions => dimensions.as_array()?,
    };
    let size = |dimension: &Value| -> Option<i64> {
        let size = &dimension["size"];
        // 64-bit numbers are strings in the JSON form of protocol buffers.
        size.as_i64().or_else(|| size.as_str()?.parse().ok())
    };
    let sizes = dimensions.iter().map(size).collect::<Option<Vec<_>>>()?;
    Some(sizes.iter().map(|&n| usize::try_from(n).ok()).collect())
}

impl Tensor {
    /// The sizes of the dimensions of one row, that is, all but the first. `None` if they are not known, or if the
    /// tensor has no rows because it is a scalar.
    pub fn row_shape(&self) -> Option<&[Option<usize>]> {
        self.shape.as_deref()?.get(1..)
    }

    /// The number of elements of one row, if it is known.
    pub fn row_size(&self) -> Option<usize> {
        let sizes = self.row_shape()?.iter();
        sizes
            .copied()
            .try_fold(1, |product: usize, size| product.checked_mul(size?))
    }

    /// The lists around the element of a row, if a row is one element and the graph takes no other shape: 1 for
    /// [-1, 1]. 0 otherwise.
    pub fn lists_around_element(&self) -> usize {
        match self.row_shape() {
            Some(sizes) if self.is_strict && self.row_size() == Some(1) => sizes.len(),
            _ => 0,
        }
    }

    /// The type and shape, for messages: `float32 of shape [-1, 4]`.
    pub fn description(&self) -> String {
        let dtype = self.dtype.name();
        let Some(shape) = &self.shape else {
            return format!("{dtype} of unknown shape");
        };
        let sizes = shape.iter().map(|size| match size {
            Some(size) => size.to_string(),
            None => "-1".to_owned(),
        });
        format!(
            "{dtype} of shape [{}]",
            sizes.collect::<Vec<_>>().join(", ")
        )
    }
}

#[cfg(test)]
pub(in crate::convert) mod testing {
    use super::*;

    /// A tensor as TensorFlow 2 exports it; -1 stands for any size.
    pub fn tensor(name: &str, dtype: Dtype, shape: &[i64]) -> Tensor {
        Tensor {
            name: name.into(),
            dtype,
            shape: Some(shape.iter().map(|&n| usize::try_from(n).ok()).collect()),
            is_strict: true,
        }
    }

    /// The signature `serving_default` with these tensors.
    pub fn signature(inputs: Vec<Tensor>, outputs: Vec<Tensor>) -> Arc<Signature> {
        Arc::new(Signature {
            name: DEFAULT_NAME.into(),
            inputs,
            outputs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::testing::tensor;
    use super::*;

    const METADATA: &str = r#"{
        "model_spec": {"name": "m", "signature_name": "", "version": "1"},
        "metadata": {"signature_def": {"signature_def": {
            "serving_default": {
                "inputs": {
                    "b": {"dtype": "DT_INT64", "name": "serving_default_b:0",
                          "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": 3}], "unknown_rank": false}},
                    "a": {"dtype": "DT_STRING", "name": "a:0", "tensor_shape": {"dim": [], "unknown_rank": true}}
                },
                "outputs": {
                    "y": {"dtype": "DT_FLOAT", "name": "y:0", "tensor_shape": {"dim": [], "unknown_rank": false}},
                    "z": {"dtype": "DT_VARIANT", "name": "z:0", "tensor_shape": {"dim": [{"size": "x"}]}}
                },
                "method_name": "tensorflow/serving/predict"
            },
            "other": {}
        }}}
    }"#;

    #[test]
    fn reads_names_types_and_shapes() {
        let signatures = Signatures::parse(METADATA.as_bytes()).unwrap();
        assert_eq!(
            signatures.names().collect::<Vec<_>>(),
            ["other", "serving_default"]
        );
        let signature = signatures.get("serving_default").unwrap();
        let loose = |name: &str, dtype, shape| Tensor {
            name: name.into(),
            dtype,
            shape,
            is_strict: false,
        };
        assert_eq!(
            signature.inputs,
            [
                loose("a", Dtype::String, None),
                tensor("b", Dtype::Int64, &[-1, 3]),
            ]
        );
        assert_eq!(
            signature.outputs,
            [
                loose("y", Dtype::Float, Some(Vec::new())),
                loose("z", Dtype::Other, None),
            ]
        );
        assert!(signatures.get("other").unwrap().inputs.is_empty());
    }

    #[test]
    fn other_responses_list_no_signatures() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"metadata": {"signature_def": 1}}"#,
            "no JSON",
        ] {
            assert_eq!(Signatures::parse(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn integers_have_the_ranges_of_rust() {
        for (dtype, low, high) in [
            (Dtype::Int8, i8::MIN.into(), i8::MAX.into()),
            (Dtype::Uint16, 0, u16::MAX.into()),
            (Dtype::Int64, i64::MIN.into(), i64::MAX.into()),
            (Dtype::Uint64, 0, u64::MAX.into()),
        ] {
            assert_eq!(dtype.integer_range(), Some((low, high)));
        }
        assert_eq!(Dtype::Float.integer_range(), None);
    }

    #[test]
    fn rows_have_all_dimensions_but_the_first() {
        let tensor = |shape: &[i64]| tensor("x", Dtype::Float, shape);
        assert_eq!(tensor(&[-1]).row_size(), Some(1));
        assert_eq!(tensor(&[-1, 2, 3]).row_size(), Some(6));
        assert_eq!(tensor(&[-1, -1, 3]).row_size(), None);
        assert_eq!(tensor(&[-1, i64::MAX, 3]).row_size(), None);
        assert_eq!(tensor(&[]).row_shape(), None);
        assert_eq!(tensor(&[-1, 2]).description(), "float32 of shape [-1, 2]");
    }
}
