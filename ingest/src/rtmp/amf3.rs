//! AMF3 values, which stand inside AMF0 behind a marker of their own (Adobe, "Action Message Format -- AMF 3").
//!
//! What was sent once can be named again by number: strings, objects and their property names. So a few bytes can
//! stand for many, and the budget counts what comes out, not only what came in.

use bytes::Buf;

use super::amf::{AmfError, Budget, DEPTH_MAX, Value};

const UNDEFINED: u8 = 0x00;
const NULL: u8 = 0x01;
const FALSE: u8 = 0x02;
const TRUE: u8 = 0x03;
const INTEGER: u8 = 0x04;
const DOUBLE: u8 = 0x05;
const STRING: u8 = 0x06;
const XML_DOCUMENT: u8 = 0x07;
const DATE: u8 = 0x08;
const ARRAY: u8 = 0x09;
const OBJECT: u8 = 0x0A;
const XML: u8 = 0x0B;
const BYTE_ARRAY: u8 = 0x0C;
const VECTOR_INT: u8 = 0x0D;
const VECTOR_UINT: u8 = 0x0E;
const VECTOR_DOUBLE: u8 = 0x0F;
const VECTOR_OBJECT: u8 = 0x10;
const DICTIONARY: u8 = 0x11;

/// Reads one value off `bytes`. `depth` is the number of objects and arrays around it.
pub(super) fn value(bytes: &mut &[u8], budget: &mut Budget, depth: usize) -> Result<Value, AmfError> {
    // Numbers begin anew with every value that AMF0 hands over (AMF 0, §3.1).
    let mut reader = Reader { bytes, budget, strings: Vec::new(), traits: Vec::new(), objects: 0 };
    reader.value(depth)
}

struct Reader<'a, 'b> {
    bytes: &'a mut &'b [u8],
    budget: &'a mut Budget,
    /// Every entry was paid for when it came: a value or a property name is at least one node of the budget.
    strings: Vec<String>,
    traits: Vec<Traits>,
    /// How many objects, arrays, dates and the like have begun.
    objects: usize,
}

/// Property names that objects of one class share (§3.12).
#[derive(Clone)]
struct Traits {
    sealed: Vec<String>,
    /// More properties follow, each with its name.
    dynamic: bool,
}

/// What begins a string, an object and the like.
enum Head {
    /// Something sent before.
    Reference(usize),
    /// It follows; the number is its length, or whatever else 28 bits say.
    Inline(usize),
}

impl Reader<'_, '_> {
    fn value(&mut self, depth: usize) -> Result<Value, AmfError> {
        self.budget.node()?;
        let marker = self.u8()?;
        Ok(match marker {
            UNDEFINED => Value::Undefined,
            NULL => Value::Null,
            FALSE => Value::Boolean(false),
            TRUE => Value::Boolean(true),
            // 29 bits with a sign (§3.6).
            INTEGER => Value::Number(f64::from((self.u29()? << 3) as i32 >> 3)),
            DOUBLE => Value::Number(self.f64()?),
            STRING => Value::String(self.string()?),
            XML_DOCUMENT | XML => match self.complex()? {
                Some(length) => Value::String(self.text(length)?),
                None => Value::Undefined,
            },
            DATE => match self.complex()? {
                Some(_) => Value::Date(self.f64()?),
                None => Value::Undefined,
            },
            // No command has one.
            BYTE_ARRAY => {
                if let Some(length) = self.complex()? {
                    self.take(length)?;
                }
                Value::Undefined
            }
            ARRAY..=OBJECT | VECTOR_INT..=DICTIONARY if depth == DEPTH_MAX => return Err(AmfError::TooDeep),
            OBJECT => self.object(depth + 1)?,
            ARRAY | VECTOR_INT..=DICTIONARY => match self.complex()? {
                None => Value::Undefined,
                Some(count) => match marker {
                    ARRAY => self.array(count, depth + 1)?,
                    VECTOR_INT => self.numbers(count, |reader| Ok(f64::from(reader.u32()? as i32)))?,
                    VECTOR_UINT => self.numbers(count, |reader| Ok(f64::from(reader.u32()?)))?,
                    VECTOR_DOUBLE => self.numbers(count, Self::f64)?,
                    VECTOR_OBJECT => self.vector(count, depth + 1)?,
                    _ => self.dictionary(count, depth + 1)?,
                },
            },
            other => return Err(AmfError::Marker(other)),
        })
    }

    /// Named properties up to an empty name, then `count` values without (§3.11).
    fn array(&mut self, count: usize, depth: usize) -> Result<Value, AmfError> {
        let mut properties = self.properties(depth)?;
        if properties.is_empty() {
            return Ok(Value::StrictArray(self.elements(count, depth)?));
        }
        let elements = self.elements(count, depth)?.into_iter().enumerate();
        properties.extend(elements.map(|(at, value)| (at.to_string(), value)));
        Ok(Value::EcmaArray(properties))
    }

    /// §3.12.
    fn object(&mut self, depth: usize) -> Result<Value, AmfError> {
        let traits = match self.head()? {
            Head::Reference(index) => return self.known_object(index),
            Head::Inline(head) => {
                self.objects += 1;
                self.traits(head)?
            }
        };
        let mut properties = Vec::new();
        for name in &traits.sealed {
            self.budget.text(name.len())?;
            properties.push((name.clone(), self.value(depth)?));
        }
        if traits.dynamic {
            properties.append(&mut self.properties(depth)?);
        }
        Ok(Value::Object(properties))
    }

    fn traits(&mut self, head: usize) -> Result<Traits, AmfError> {
        if head & 1 == 0 {
            return self.traits.get(head >> 1).cloned().ok_or(AmfError::Reference);
        }
        if head & 2 != 0 {
            // A class that writes itself, in a format that only its author knows.
            return Err(AmfError::Marker(OBJECT));
        }
        self.string()?; // class name
        let mut sealed = Vec::new();
        // The count is believed one name at a time: the bytes and the budget run out first.
        for _ in 0..head >> 3 {
            self.budget.node()?;
            sealed.push(self.string()?);
        }
        let traits = Traits { sealed, dynamic: head & 4 != 0 };
        self.traits.push(traits.clone());
        Ok(traits)
    }

    fn dictionary(&mut self, count: usize, depth: usize) -> Result<Value, AmfError> {
        self.u8()?; // weak keys
        let mut entries = Vec::new();
        for _ in 0..count {
            let (key, value) = (self.value(depth)?, self.value(depth)?);
            if let Value::String(key) = key {
                entries.push((key, value));
            }
        }
        Ok(Value::EcmaArray(entries))
    }

    fn vector(&mut self, count: usize, depth: usize) -> Result<Value, AmfError> {
        self.u8()?; // of fixed length
        self.string()?; // class of its elements
        Ok(Value::StrictArray(self.elements(count, depth)?))
    }

    fn numbers(
        &mut self,
        count: usize,
        number: fn(&mut Self) -> Result<f64, AmfError>,
    ) -> Result<Value, AmfError> {
        self.u8()?; // of fixed length
        let mut numbers = Vec::new();
        for _ in 0..count {
            self.budget.node()?;
            numbers.push(Value::Number(number(self)?));
        }
        Ok(Value::StrictArray(numbers))
    }

    fn elements(&mut self, count: usize, depth: usize) -> Result<Vec<Value>, AmfError> {
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(self.value(depth)?);
        }
        Ok(elements)
    }

    fn properties(&mut self, depth: usize) -> Result<Vec<(String, Value)>, AmfError> {
        let mut properties = Vec::new();
        loop {
            let name = self.string()?;
            if name.is_empty() {
                return Ok(properties);
            }
            properties.push((name, self.value(depth)?));
        }
    }

    fn string(&mut self) -> Result<String, AmfError> {
        match self.head()? {
            Head::Reference(index) => {
                let text = self.strings.get(index).ok_or(AmfError::Reference)?.clone();
                self.budget.text(text.len())?;
                Ok(text)
            }
            // The empty string is never named again (§1.3.2).
            Head::Inline(0) => Ok(String::new()),
            Head::Inline(length) => {
                let text = self.text(length)?;
                self.strings.push(text.clone());
                Ok(text)
            }
        }
    }

    fn text(&mut self, bytes: usize) -> Result<String, AmfError> {
        let text = String::from_utf8_lossy(self.take(bytes)?).into_owned();
        self.budget.text(text.len())?;
        Ok(text)
    }

    /// What follows the head of anything that can be named again but strings; `None` if it is only named.
    fn complex(&mut self) -> Result<Option<usize>, AmfError> {
        match self.head()? {
            Head::Reference(index) => self.known_object(index).map(|_| None),
            Head::Inline(head) => {
                self.objects += 1;
                Ok(Some(head))
            }
        }
    }

    /// Something that was sent before, or that this stands in. Nobody here looks into one, so it is not copied.
    fn known_object(&self, index: usize) -> Result<Value, AmfError> {
        if index < self.objects { Ok(Value::Undefined) } else { Err(AmfError::Reference) }
    }

    fn head(&mut self) -> Result<Head, AmfError> {
        let head = self.u29()? as usize;
        Ok(if head & 1 == 0 { Head::Reference(head >> 1) } else { Head::Inline(head >> 1) })
    }

    /// Seven bits in each of up to three bytes, and eight in the fourth (§1.3.1).
    fn u29(&mut self) -> Result<u32, AmfError> {
        let mut value = 0;
        for _ in 0..3 {
            let byte = self.u8()?;
            value = value << 7 | u32::from(byte & 0x7F);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Ok(value << 8 | u32::from(self.u8()?))
    }

    fn take(&mut self, bytes: usize) -> Result<&[u8], AmfError> {
        let (taken, rest) = self.bytes.split_at_checked(bytes).ok_or(AmfError::Truncated)?;
        *self.bytes = rest;
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

#[cfg(test)]
mod tests;
