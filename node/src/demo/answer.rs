//! Reading JSON answers: what is missing is null, and null is nothing.

use serde_json::Value;

static NULL: Value = Value::Null;

/// One field.
pub(super) fn field<'a>(v: &'a Value, key: &str) -> &'a Value {
    v.get(key).unwrap_or(&NULL)
}

/// The elements of a list.
pub(super) fn list<'a>(v: &'a Value, key: &str) -> &'a [Value] {
    v.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A text; empty where there is none.
pub(super) fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    field(v, key).as_str().unwrap_or("")
}

/// A number; 0 where there is none.
pub(super) fn number(v: &Value, key: &str) -> u64 {
    field(v, key).as_u64().unwrap_or(0)
}
