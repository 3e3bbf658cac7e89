use proptest::prelude::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::super::amf::{BYTES_MAX, NODES_MAX, decode};
use super::*;

/// The marker in AMF0 behind which AMF3 begins.
const SWITCH: u8 = 0x11;

/// What a message of this one AMF3 value says.
fn read(amf3: &[u8]) -> Result<Value, AmfError> {
    let mut values = decode(&[&[SWITCH], amf3].concat())?;
    assert_eq!(values.len(), 1, "one value");
    Ok(values.remove(0))
}

/// A string that is not named again, or a property name.
fn text(text: &str) -> Vec<u8> {
    [&[(text.len() as u8) << 1 | 1], text.as_bytes()].concat()
}

#[test]
fn simple_values_are_read() {
    let cases: [(&[u8], Value); 12] = [
        (&[UNDEFINED], Value::Undefined),
        (&[NULL], Value::Null),
        (&[FALSE], Value::Boolean(false)),
        (&[TRUE], Value::Boolean(true)),
        (&[INTEGER, 0x7F], Value::Number(127.0)),
        (&[INTEGER, 0x81, 0x00], Value::Number(128.0)),
        (&[INTEGER, 0xBF, 0xFF, 0xFF, 0xFF], Value::Number(268_435_455.0)),
        (&[INTEGER, 0xFF, 0xFF, 0xFF, 0xFF], Value::Number(-1.0)),
        (&[DOUBLE, 0x40, 0x08, 0, 0, 0, 0, 0, 0], Value::Number(3.0)),
        (b"\x06\x07key", Value::string("key")),
        (b"\x07\x09<a/>", Value::string("<a/>")),
        (&[DATE, 1, 0x40, 0x08, 0, 0, 0, 0, 0, 0], Value::Date(3.0)),
    ];
    for (amf3, value) in cases {
        assert_eq!(read(amf3), Ok(value), "{amf3:02x?}");
    }
    // AMF0 goes on behind it.
    assert_eq!(decode(&[SWITCH, TRUE, 0x05]), Ok(vec![Value::Boolean(true), Value::Null]));
}

#[test]
fn collections_are_read() {
    let cases: [(&[u8], Value); 7] = [
        (&[ARRAY, 5, 1, TRUE, NULL], Value::StrictArray(vec![Value::Boolean(true), Value::Null])),
        (
            b"\x09\x03\x03a\x01\x01\x03",
            Value::EcmaArray(vec![("a".into(), Value::Null), ("0".into(), Value::Boolean(true))]),
        ),
        (&[BYTE_ARRAY, 7, 1, 2, 3], Value::Undefined),
        (&[VECTOR_INT, 3, 0, 0xFF, 0xFF, 0xFF, 0xFF], Value::StrictArray(vec![Value::Number(-1.0)])),
        (&[VECTOR_UINT, 3, 0, 0, 0, 1, 0], Value::StrictArray(vec![Value::Number(256.0)])),
        (&[VECTOR_OBJECT, 3, 0, 1, NULL], Value::StrictArray(vec![Value::Null])),
        (b"\x11\x05\0\x06\x03a\x03\x01\x01", Value::EcmaArray(vec![("a".into(), Value::Boolean(true))])),
    ];
    for (amf3, value) in cases {
        assert_eq!(read(amf3), Ok(value), "{amf3:02x?}");
    }
}

/// As Flash Player sends the object of `connect`: a dynamic one without sealed properties, and one of a class.
#[test]
fn objects_are_read_and_class_names_dropped() {
    let dynamic = [&[OBJECT, 0x0B, 1][..], &text("app"), &[STRING], &text("live"), &[1]].concat();
    assert_eq!(read(&dynamic), Ok(Value::object([("app", Value::string("live"))])));
    let sealed = [&[OBJECT, 0x23][..], &text("C"), &text("a"), &text("b"), &[TRUE, NULL]].concat();
    assert_eq!(read(&sealed), Ok(Value::object([("a", Value::Boolean(true)), ("b", Value::Null)])));
    assert_eq!(read(&[OBJECT, 0x07, 3, b'C']), Err(AmfError::Marker(OBJECT)), "externalizable");
}

#[test]
fn what_was_sent_before_can_be_named() {
    // Two objects of a class: the second names the class's properties and a string of the first.
    let first = [&[OBJECT, 0x13][..], &text("C"), &text("a"), &[STRING], &text("x")].concat();
    let second = [OBJECT, 0x01, STRING, 2 << 1];
    let both = [&[ARRAY, 5, 1], &first[..], &second].concat();
    let object = Value::object([("a", Value::string("x"))]);
    assert_eq!(read(&both), Ok(Value::StrictArray(vec![object.clone(), object])));

    // An array that holds itself.
    assert_eq!(read(&[ARRAY, 3, 1, ARRAY, 0]), Ok(Value::StrictArray(vec![Value::Undefined])));
    for nothing in [&[STRING, 0][..], &[OBJECT, 0], &[ARRAY, 0], &[DATE, 2], &[OBJECT, 0x01]] {
        assert_eq!(read(nothing), Err(AmfError::Reference), "{nothing:02x?}");
    }
}

/// Threat: values nested until the stack ends, before anybody has shown a key.
#[test]
fn nesting_stops_at_the_limit() {
    let arrays = |depth: usize| [[ARRAY, 3, 1].repeat(depth), vec![NULL]].concat();
    let objects = |depth: usize| {
        let open = [&[OBJECT, 0x0B, 1][..], &text("a")].concat();
        [open.repeat(depth), vec![NULL], vec![1; depth]].concat()
    };
    for (depth, fits) in [(31, true), (32, true), (33, false), (20_000, false)] {
        assert_eq!(read(&arrays(depth)).is_ok(), fits, "{depth} arrays");
    }
    for (depth, fits) in [(31, true), (32, true), (33, false), (10_000, false)] {
        assert_eq!(read(&objects(depth)).is_ok(), fits, "{depth} objects");
    }
    // AMF0 around it counts too.
    let mixed = |amf0: usize| [[0x0A, 0, 0, 0, 1].repeat(amf0), vec![SWITCH], arrays(16)].concat();
    assert!(decode(&mixed(16)).is_ok());
    assert_eq!(decode(&mixed(17)), Err(AmfError::TooDeep));
}

/// Address space of this test process, in bytes: ten times what its tests need, and less than the values that four bytes
/// can declare would take.
const ADDRESS_SPACE_MAX: u64 = 6 * 1024 * 1024 * 1024;

/// Threat: hundreds of millions of elements declared, none sent. Whoever believes it ends this process here; where memory
/// may be promised beyond what there is, nobody would notice otherwise.
#[test]
fn declared_counts_reserve_nothing() {
    let limit = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: Some(ADDRESS_SPACE_MAX), ..limit }).unwrap();
    const { assert!(size_of::<Value>() as u64 * 0x0FFF_FFFF > ADDRESS_SPACE_MAX) };
    for marker in
        [STRING, XML, BYTE_ARRAY, VECTOR_INT, VECTOR_DOUBLE, VECTOR_OBJECT, DICTIONARY, ARRAY, OBJECT]
    {
        // As a string, array or vector: 2^28 - 1. As an object: 2^25 - 1 sealed names.
        let head = [marker, 0xFF, 0xFF, 0xFF, if marker == OBJECT { 0xF3 } else { 0xFF }];
        assert_eq!(read(&[&head[..], &[1; 3]].concat()), Err(AmfError::Truncated), "{marker:#x}");
    }
}

/// Threat: one byte per value makes small messages into large trees.
#[test]
fn values_and_names_are_counted() {
    let array = |count: usize| {
        let head = (count as u32) << 1 | 1;
        let head = [0x80 | (head >> 14) as u8, 0x80 | (head >> 7) as u8 & 0x7F, head as u8 & 0x7F];
        [&[ARRAY][..], &head, &[1], &vec![NULL; count]].concat()
    };
    // The switch and the array itself are two.
    assert!(read(&array(NODES_MAX - 2)).is_ok());
    assert_eq!(read(&array(NODES_MAX - 1)), Err(AmfError::TooMany));
    let numbers = [&[VECTOR_INT, 0xFF, 0xFF, 0xFF, 0xFF, 0][..], &[0; 4 * NODES_MAX]].concat();
    assert_eq!(read(&numbers), Err(AmfError::TooMany));
    let names = [&[OBJECT, 0xFF, 0xFF, 0xFF, 0xF3, 1][..], &text("n"), &[0; 8_000]].concat();
    assert_eq!(read(&names), Err(AmfError::TooMany));
}

/// Threat: a string of 30 KiB, named a thousand times in two bytes each.
#[test]
fn what_is_named_again_is_counted_again() {
    let long = [&[STRING, 0x83, 0xE0, 0x01][..], &[b'x'; 30 * 1024]].concat();
    assert_eq!(long.len(), 4 + 30 * 1024);
    let named =
        |times: u8| [&[ARRAY, 2 * (times + 1) + 1, 1][..], &long, &[STRING, 0].repeat(times.into())].concat();
    assert!(read(&named(1)).is_ok());
    assert_eq!(read(&named(2)), Err(AmfError::TooLong(90 * 1024)));

    // The same by the property names of a class.
    let class = [&[OBJECT, 0x13, 1, 0x83, 0xE0, 0x01][..], &[b'x'; 30 * 1024], &[NULL]].concat();
    let again = [&[ARRAY, 7, 1][..], &class, &[OBJECT, 0x01, NULL].repeat(2)].concat();
    assert!(matches!(read(&again), Err(AmfError::TooLong(_))));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let _ = decode(&[&[SWITCH], bytes.as_slice()].concat());
    }

    /// Markers, short lengths and references are likelier here than in random bytes, so this reaches deeper.
    #[test]
    fn nearly_valid_bytes_never_panic(bytes in prop::collection::vec(0..0x24_u8, 0..2_000)) {
        if let Ok(values) = decode(&[&[SWITCH], bytes.as_slice()].concat()) {
            prop_assert!(values.len() <= NODES_MAX && bytes.len() <= BYTES_MAX);
        }
    }
}
