//! Formats of request bodies, and what custom attributes and batch transform add to them.

mod batch_transform;
mod conversion;
mod custom_attributes;
mod hostile;
mod nested_json;
mod signatures;
