//! AMF0, in which RTMP writes commands and metadata (Adobe, "Action Message Format -- AMF 0").
//!
//! The reader is bounded before it believes anything: how deep values nest, how many there are, how long the
//! message is. Declared element counts are read and forgotten.

use bytes::{Buf, BufMut, BytesMut};

use super::amf3;

/// Nesting of objects and arrays. `onMetaData` nests two deep.
pub(super) const DEPTH_MAX: usize = 32;
/// Values in one message, property values included. `onMetaData` has about twenty.
pub(super) const NODES_MAX: usize = 4_096;
/// Length of one message in bytes, and of all text in it: AMF3 can name a string again in two bytes.
pub(super) const BYTES_MAX: usize = 64 * 1024;

const NUMBER: u8 = 0x00;
const BOOLEAN: u8 = 0x01;
const STRING: u8 = 0x02;
const OBJECT: u8 = 0x03;
const NULL: u8 = 0x05;
const UNDEFINED: u8 = 0x06;
const ECMA_ARRAY: u8 = 0x08;
const OBJECT_END: u8 = 0x09;
const STRICT_ARRAY: u8 = 0x0A;
const DATE: u8 = 0x0B;
const LONG_STRING: u8 = 0x0C;
const UNSUPPORTED: u8 = 0x0D;
const XML_DOCUMENT: u8 = 0x0F;
const TYPED_OBJECT: u8 = 0x10;
/// The next value is written in AMF3.
const AVM_PLUS: u8 = 0x11;

/// One value. Has no `Debug` outside tests: it may be a publish key.
#[derive(Clone, PartialEq)]
#[cfg_attr(test, derive(Debug))]
pub(super) enum Value {
    Number(f64),
    Boolean(bool),
    /// Of any length; what is not UTF-8 in it is replaced.
    String(String),
    /// In the order sent. A typed object's class name is dropped.
    Object(Vec<(String, Self)>),
    /// An object by another marker, written by some encoders for metadata.
    EcmaArray(Vec<(String, Self)>),
    StrictArray(Vec<Self>),
    /// Milliseconds since 1970, UTC.
    Date(f64),
    Null,
    Undefined,
}

/// Why a message is not AMF0 that we read. The publisher's encoder must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AmfError {
    #[error("AMF value ends early")]
    Truncated,
    #[error("AMF message of {0} bytes is above the limit of {BYTES_MAX}")]
    TooLong(usize),
    #[error("AMF values nest deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("AMF message has more than {NODES_MAX} values")]
    TooMany,
    #[error("AMF3 names something that was not sent")]
    Reference,
    /// References, recordsets and movie clips of AMF0; classes of AMF3 that write themselves.
    #[error("AMF type {0:#04x} is not supported")]
    Marker(u8),
}

impl Value {
    pub(super) fn string(text: &str) -> Self {
        Self::String(text.to_owned())
    }

    pub(super) fn object<const N: usize>(properties: [(&str, Self); N]) -> Self {
        Self::Object(properties.map(|(name, value)| (name.to_owned(), value)).into())
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// A property of an object or ECMA array.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let (Self::Object(properties) | Self::EcmaArray(properties)) = self else { return None };
        properties.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// Reads all values of a message.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Value>, AmfError> {
    if bytes.len() > BYTES_MAX {
        return Err(AmfError::TooLong(bytes.len()));
    }
    let budget = Budget { nodes_left: NODES_MAX, text_bytes: 0 };
    let mut decoder = Decoder { bytes, budget };
    let mut values = Vec::new();
    while !decoder.bytes.is_empty() {
        values.push(decoder.value(0)?);
    }
    Ok(values)
}

struct Decoder<'a> {
    bytes: &'a [u8],
    budget: Budget,
}

/// What one message may still become in memory.
pub(super) struct Budget {
    nodes_left: usize,
    text_bytes: usize,
}

impl Budget {
    /// Pays for a value, or for a name that AMF3 keeps.
    pub(super) fn node(&mut self) -> Result<(), AmfError> {
        self.nodes_left = self.nodes_left.checked_sub(1).ok_or(AmfError::TooMany)?;
        Ok(())
    }

    /// Pays for text of AMF3. That of AMF0 is never longer than the message.
    pub(super) fn text(&mut self, bytes: usize) -> Result<(), AmfError> {
        self.text_bytes += bytes;
        if self.text_bytes > BYTES_MAX { Err(AmfError::TooLong(self.text_bytes)) } else { Ok(()) }
    }
}

impl Decoder<'_> {
    /// `depth` is the number of objects and arrays around this value; it bounds the recursion.
    fn value(&mut self, depth: usize) -> Result<Value, AmfError> {
        self.budget.node()?;
        let marker = self.u8()?;
        if matches!(marker, OBJECT | ECMA_ARRAY | STRICT_ARRAY | TYPED_OBJECT) && depth == DEPTH_MAX {
            return Err(AmfError::TooDeep);
        }
        Ok(match marker {
            NUMBER => Value::Number(self.f64()?),
            BOOLEAN => Value::Boolean(self.u8()? != 0),
            STRING => Value::String(self.short_string()?),
            LONG_STRING | XML_DOCUMENT => Value::String(self.long_string()?),
            OBJECT => Value::Object(self.properties(depth + 1)?),
            TYPED_OBJECT => {
                self.short_string()?;
                Value::Object(self.properties(depth + 1)?)
            }
            ECMA_ARRAY => {
                // A hint only: the array ends where its end marker stands (§2.10).
                self.u32()?;
                Value::EcmaArray(self.properties(depth + 1)?)
            }
            STRICT_ARRAY => Value::StrictArray(self.elements(depth + 1)?),
            DATE => {
                let millis = self.f64()?;
                // A time zone, reserved and to be ignored (§2.13).
                self.take(2)?;
                Value::Date(millis)
            }
            NULL => Value::Null,
            UNDEFINED | UNSUPPORTED => Value::Undefined,
            AVM_PLUS => amf3::value(&mut self.bytes, &mut self.budget, depth)?,
            other => return Err(AmfError::Marker(other)),
        })
    }

    /// Name and value pairs up to the empty name with the end marker (§2.5).
    fn properties(&mut self, depth: usize) -> Result<Vec<(String, Value)>, AmfError> {
        let mut properties = Vec::new();
        loop {
            let name = self.short_string()?;
            if name.is_empty() && self.bytes.first() == Some(&OBJECT_END) {
                self.take(1)?;
                return Ok(properties);
            }
            properties.push((name, self.value(depth)?));
        }
    }

    /// The count is believed one element at a time: the bytes and the node budget run out first.
    fn elements(&mut self, depth: usize) -> Result<Vec<Value>, AmfError> {
        let count = self.u32()?;
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(self.value(depth)?);
        }
        Ok(elements)
    }

    fn short_string(&mut self) -> Result<String, AmfError> {
        let bytes = self.bytes.try_get_u16().map_err(|_| AmfError::Truncated)?;
        self.text(usize::from(bytes))
    }

    fn long_string(&mut self) -> Result<String, AmfError> {
        let bytes = self.u32()?;
        self.text(bytes as usize)
    }

    fn text(&mut self, bytes: usize) -> Result<String, AmfError> {
        Ok(String::from_utf8_lossy(self.take(bytes)?).into_owned())
    }

    fn take(&mut self, bytes: usize) -> Result<&[u8], AmfError> {
        let (taken, rest) = self.bytes.split_at_checked(bytes).ok_or(AmfError::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, AmfError> {
        self.bytes.try_get_u8().map_err(|_| AmfError::Truncated)
    }

    fn u32(&mut self) -> Result<u32, AmfError> {
        self.bytes.try_get_u32().map_err(|_| AmfError::Truncated)
    }

    fn f64(&mut self) -> Result<f64, AmfError> {
        self.bytes.try_get_f64().map_err(|_| AmfError::Truncated)
    }
}

/// Writes `values` one after the other.
pub(super) fn encode(values: &[Value]) -> BytesMut {
    let mut out = BytesMut::new();
    for value in values {
        put_value(value, &mut out);
    }
    out
}

fn put_value(value: &Value, out: &mut BytesMut) {
    match value {
        Value::Number(number) => {
            out.put_u8(NUMBER);
            out.put_f64(*number);
        }
        Value::Boolean(truth) => {
            out.put_u8(BOOLEAN);
            out.put_u8(u8::from(*truth));
        }
        Value::String(text) if text.len() > usize::from(u16::MAX) => {
            out.put_u8(LONG_STRING);
            out.put_u32(text.len() as u32);
            out.put_slice(text.as_bytes());
        }
        Value::String(text) => {
            out.put_u8(STRING);
            put_short_string(text, out);
        }
        Value::Object(properties) => {
            out.put_u8(OBJECT);
            put_properties(properties, out);
        }
        Value::EcmaArray(properties) => {
            out.put_u8(ECMA_ARRAY);
            out.put_u32(properties.len() as u32);
            put_properties(properties, out);
        }
        Value::StrictArray(elements) => {
            out.put_u8(STRICT_ARRAY);
            out.put_u32(elements.len() as u32);
            for element in elements {
                put_value(element, out);
            }
        }
        Value::Date(millis) => {
            out.put_u8(DATE);
            out.put_f64(*millis);
            out.put_u16(0);
        }
        Value::Null => out.put_u8(NULL),
        Value::Undefined => out.put_u8(UNDEFINED),
    }
}

fn put_properties(properties: &[(String, Value)], out: &mut BytesMut) {
    for (name, value) in properties {
        put_short_string(name, out);
        put_value(value, out);
    }
    put_short_string("", out);
    out.put_u8(OBJECT_END);
}

fn put_short_string(text: &str, out: &mut BytesMut) {
    let bytes = u16::try_from(text.len()).expect("our own names are short");
    out.put_u16(bytes);
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `depth` strict arrays of one element each, around a null.
    fn nested_arrays(depth: usize) -> Vec<u8> {
        let mut bytes = [STRICT_ARRAY, 0, 0, 0, 1].repeat(depth);
        bytes.push(NULL);
        bytes
    }

    fn nested_objects(depth: usize) -> Vec<u8> {
        let mut bytes = [OBJECT, 0, 1, b'a'].repeat(depth);
        bytes.push(NULL);
        bytes.extend([0, 0, OBJECT_END].repeat(depth));
        bytes
    }

    /// Threat: values nested until the stack ends, before anybody has shown a key.
    #[test]
    fn nesting_stops_at_the_limit() {
        for nested in [nested_arrays, nested_objects] {
            assert!(decode(&nested(31)).is_ok());
            assert!(decode(&nested(32)).is_ok());
            assert_eq!(decode(&nested(33)), Err(AmfError::TooDeep));
            assert!(matches!(decode(&nested(100_000)), Err(AmfError::TooLong(_))));
            // Without the limit on bytes, depth alone must hold.
            let budget = Budget { nodes_left: usize::MAX, text_bytes: 0 };
            let mut decoder = Decoder { bytes: &nested(100_000), budget };
            assert_eq!(decoder.value(0), Err(AmfError::TooDeep));
        }
    }

    /// Threat: four billion elements declared, none sent.
    #[test]
    fn declared_counts_reserve_nothing() {
        let strict = [STRICT_ARRAY, 0xFF, 0xFF, 0xFF, 0xFF];
        assert_eq!(decode(&strict), Err(AmfError::Truncated));
        let long_string = [LONG_STRING, 0xFF, 0xFF, 0xFF, 0xFF, b'a'];
        assert_eq!(decode(&long_string), Err(AmfError::Truncated));

        let mut ecma = vec![ECMA_ARRAY, 0xFF, 0xFF, 0xFF, 0xFF];
        ecma.extend([0, 1, b'a', NULL, 0, 0, OBJECT_END]);
        let Value::EcmaArray(properties) = decode(&ecma).unwrap().remove(0) else { panic!("an ECMA array") };
        assert_eq!(properties, [("a".to_owned(), Value::Null)]);
        assert!(properties.capacity() < 16);
    }

    /// Threat: one byte per value makes small messages into large trees.
    #[test]
    fn values_are_counted() {
        assert!(decode(&[NULL; NODES_MAX]).is_ok());
        assert_eq!(decode(&[NULL; NODES_MAX + 1]), Err(AmfError::TooMany));
    }

    #[test]
    fn other_markers_are_read_or_named() {
        let typed = [TYPED_OBJECT, 0, 1, b'C', 0, 1, b'a', NULL, 0, 0, OBJECT_END];
        assert_eq!(decode(&typed), Ok(vec![Value::object([("a", Value::Null)])]));
        assert_eq!(decode(&[UNSUPPORTED]), Ok(vec![Value::Undefined]));
        assert_eq!(decode(&[AVM_PLUS, 0x01]), Ok(vec![Value::Null]));
        assert_eq!(decode(&[0x12]), Err(AmfError::Marker(0x12)));
        assert_eq!(decode(&[0x07, 0, 0]), Err(AmfError::Marker(0x07)));
        assert_eq!(decode(&[STRING, 0, 2, 0xFF, b'a']), Ok(vec![Value::string("\u{FFFD}a")]));
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = || "[a-z\u{e9}]{0,12}";
        let leaf = prop_oneof![
            any::<f64>().prop_filter("NaN equals nothing", |number| !number.is_nan()).prop_map(Value::Number),
            any::<bool>().prop_map(Value::Boolean),
            text().prop_map(Value::String),
            Just(Value::String("x".repeat(70_000 - 8_000))),
            (0..4_000_000_000_000_u64).prop_map(|millis| Value::Date(millis as f64)),
            Just(Value::Null),
            Just(Value::Undefined),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            let properties = prop::collection::vec((text(), inner.clone()), 0..4);
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(Value::StrictArray),
                properties.clone().prop_map(Value::Object),
                properties.prop_map(Value::EcmaArray),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in values()) {
            let bytes = encode(std::slice::from_ref(&value));
            prop_assume!(bytes.len() <= BYTES_MAX);
            prop_assert_eq!(decode(&bytes), Ok(vec![value]));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let _ = decode(&bytes);
        }

        /// Markers and short lengths are likelier here than in random bytes, so this reaches deeper.
        #[test]
        fn nearly_valid_bytes_never_panic(bytes in prop::collection::vec(0..0x12_u8, 0..2_000)) {
            let _ = decode(&bytes);
        }
    }
}
