//! What peers say of themselves at a document, in the words of automerge-repo 2.5's Presence.
//!
//! Owns: the reading of these messages. Must not: remember anything. Next: `cbor.rs`; the client crate's `presence.rs` and
//! the server crate's, which remember.

use serde_json::{Map, Value};

use crate::cbor;

/// The key under which automerge-repo wraps a presence message.
pub const MARKER: &str = "__presence";

/// A message of somebody who is at a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// These channels have these values.
    Channels(Map<String, Value>),
    /// They leave.
    Goodbye,
    /// They are there still; also what a later version says.
    Alive,
}

/// Reads a message; `None` for what is no presence message: another part of the application's.
#[must_use]
pub fn read(data: &[u8]) -> Option<Said> {
    let Ok(Value::Object(mut envelope)) = cbor::decode(data) else { return None };
    let Some(Value::Object(mut message)) = envelope.remove(MARKER) else { return None };
    let kind = message.get("type").and_then(Value::as_str).unwrap_or_default();
    Some(match (kind, message.get("channel").and_then(Value::as_str)) {
        ("update", Some(channel)) => {
            let channel = channel.to_owned();
            Said::Channels(Map::from_iter([(channel, message.remove("value").unwrap_or_default())]))
        }
        ("snapshot", _) => match message.remove("state") {
            Some(Value::Object(state)) => Said::Channels(state),
            _ => Said::Channels(Map::new()),
        },
        ("goodbye", _) => Said::Goodbye,
        _ => Said::Alive,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_message_is_read_and_what_is_none_is_left_alone() {
        let read_json = |message: Value| read(&cbor::encode(&message));
        let channels = |value: Value| Some(Said::Channels(value.as_object().expect("an object").clone()));
        let said = |message: Value| read_json(json!({ MARKER: message }));
        assert_eq!(said(json!({ "type": "snapshot", "state": { "x": 1 } })), channels(json!({ "x": 1 })));
        assert_eq!(said(json!({ "type": "update", "channel": "y", "value": [2] })), channels(json!({ "y": [2] })));
        assert_eq!(said(json!({ "type": "goodbye" })), Some(Said::Goodbye));
        assert_eq!(said(json!({ "type": "heartbeat" })), Some(Said::Alive));
        assert_eq!(said(json!({ "type": "wave", "channel": 1 })), Some(Said::Alive));
        assert_eq!(read_json(json!({ "other": 1 })), None);
        assert_eq!(read_json(json!([MARKER])), None);
        assert_eq!(read(&[0xff, 0]), None);
    }
}
