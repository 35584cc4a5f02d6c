//! What requests and answers are converted to.

mod batch_transform;
mod conversion;
mod custom_attributes;
mod nested_json;
