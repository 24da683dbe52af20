//! Compares a value with a text as if it were written, without writing it. Most new diagnoses
//! are equal to the recorded ones, and the search for characters that must be escaped is the
//! more expensive part of writing.

use std::fmt::{self, Display, Write as _};

use serde::{
    Serialize,
    ser::{self, Impossible, Serializer as _},
};

/// Returns whether [`serde_json::to_string`] would return this text. Also returns `false` for
/// values that contain numbers with a fraction, maps, or variants with data: a diagnosis
/// contains none of them.
pub fn is_written_as(value: &impl Serialize, text: &str) -> bool {
    let mut ahead = Ahead { text: text.as_bytes() };
    value.serialize(&mut ahead).is_ok() && ahead.text.is_empty()
}

/// The rest of the text.
struct Ahead<'t> {
    text: &'t [u8],
}

/// The error that the text differs.
#[derive(Debug, thiserror::Error)]
#[error("the text is another")]
struct Different;

impl ser::Error for Different {
    fn custom<T: Display>(_why: T) -> Self {
        Self
    }
}

type Same = Result<(), Different>;

impl Ahead<'_> {
    fn pass(&mut self, bytes: &[u8]) -> Same {
        self.text = self.text.strip_prefix(bytes).ok_or(Different)?;
        Ok(())
    }

    /// Compares the inside of a string. Strings that must be escaped are left to the writer.
    fn plain(&mut self, text: &str) -> Same {
        let bytes = text.as_bytes();
        match memchr::memchr2(b'"', b'\\', bytes).is_some() || has_control(bytes) {
            false => self.pass(bytes),
            true => Err(Different),
        }
    }

    fn number(&mut self, number: impl Display) -> Same {
        write!(self, "{number}").map_err(|fmt::Error| Different)
    }
}

/// Returns whether a byte is below 0x20. Checks eight bytes at a time.
fn has_control(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    let (words, rest) = bytes.as_chunks();
    // A byte below that value borrows into its highest bit, which was not set before.
    let below = |word: u64| word.wrapping_sub(ONES * 0x20) & !word & (ONES * 0x80);
    words.iter().any(|&word| below(u64::from_le_bytes(word)) != 0)
        || rest.iter().any(|&byte| byte < 0x20)
}

/// A value that is displayed is a string or a number.
impl fmt::Write for Ahead<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.plain(text).map_err(|Different| fmt::Error)
    }
}

/// A list or an object.
struct Parts<'a, 't> {
    ahead: &'a mut Ahead<'t>,
    first: bool,
}

impl Parts<'_, '_> {
    fn comma(&mut self) -> Same {
        if std::mem::take(&mut self.first) { Ok(()) } else { self.ahead.pass(b",") }
    }
}

impl ser::SerializeSeq for Parts<'_, '_> {
    type Ok = ();
    type Error = Different;

    fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Same {
        self.comma()?;
        value.serialize(&mut *self.ahead)
    }

    fn end(self) -> Same {
        self.ahead.pass(b"]")
    }
}

impl ser::SerializeStruct for Parts<'_, '_> {
    type Ok = ();
    type Error = Different;

    fn serialize_field<T: ?Sized + Serialize>(&mut self, key: &'static str, value: &T) -> Same {
        self.comma()?;
        self.ahead.serialize_str(key)?;
        self.ahead.pass(b":")?;
        value.serialize(&mut *self.ahead)
    }

    fn end(self) -> Same {
        self.ahead.pass(b"}")
    }
}

type Never = Impossible<(), Different>;

impl<'a, 't> ser::Serializer for &'a mut Ahead<'t> {
    type Ok = ();
    type Error = Different;
    type SerializeSeq = Parts<'a, 't>;
    type SerializeStruct = Parts<'a, 't>;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStructVariant = Never;

    fn serialize_bool(self, value: bool) -> Same {
        self.pass(if value { b"true" } else { b"false" })
    }

    fn serialize_i8(self, value: i8) -> Same {
        self.number(value)
    }

    fn serialize_i16(self, value: i16) -> Same {
        self.number(value)
    }

    fn serialize_i32(self, value: i32) -> Same {
        self.number(value)
    }

    fn serialize_i64(self, value: i64) -> Same {
        self.number(value)
    }

    fn serialize_u8(self, value: u8) -> Same {
        self.number(value)
    }

    fn serialize_u16(self, value: u16) -> Same {
        self.number(value)
    }

    fn serialize_u32(self, value: u32) -> Same {
        self.number(value)
    }

    fn serialize_u64(self, value: u64) -> Same {
        self.number(value)
    }

    fn serialize_f32(self, _value: f32) -> Same {
        Err(Different)
    }

    fn serialize_f64(self, _value: f64) -> Same {
        Err(Different)
    }

    fn serialize_char(self, value: char) -> Same {
        self.collect_str(&value)
    }

    fn serialize_str(self, value: &str) -> Same {
        self.pass(b"\"")?;
        self.plain(value)?;
        self.pass(b"\"")
    }

    fn collect_str<T: ?Sized + Display>(self, value: &T) -> Same {
        self.pass(b"\"")?;
        self.number(value)?;
        self.pass(b"\"")
    }

    fn serialize_bytes(self, _value: &[u8]) -> Same {
        Err(Different)
    }

    fn serialize_none(self) -> Same {
        self.pass(b"null")
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Same {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Same {
        self.pass(b"null")
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Same {
        self.pass(b"null")
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Same {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Same {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Same {
        Err(Different)
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Parts<'a, 't>, Different> {
        self.pass(b"[")?;
        Ok(Parts { ahead: self, first: true })
    }

    fn serialize_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<Parts<'a, 't>, Different> {
        self.pass(b"{")?;
        Ok(Parts { ahead: self, first: true })
    }

    fn serialize_tuple(self, _len: usize) -> Result<Never, Different> {
        Err(Different)
    }

    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> Result<Never, Different> {
        Err(Different)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Never, Different> {
        Err(Different)
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Never, Different> {
        Err(Different)
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Never, Different> {
        Err(Different)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Serialize)]
    struct Value {
        text: String,
        list: Vec<Option<i32>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        absent: Option<bool>,
        #[serde(serialize_with = "displayed")]
        shown: char,
    }

    fn displayed<S: ser::Serializer>(value: &char, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    proptest! {
        #[test]
        fn it_is_what_would_be_written(
            text: String,
            list: Vec<Option<i32>>,
            absent: Option<bool>,
            shown: char,
            at: prop::sample::Index,
            other in 0x20u8..0x7f,
        ) {
            let value = Value { text, list, absent, shown };
            let written = serde_json::to_string(&value).unwrap();
            // What is escaped is always called different.
            let is_escaped = written.contains('\\');
            prop_assert_eq!(is_written_as(&value, &written), !is_escaped);
            let more = written.clone() + " ";
            prop_assert!(!is_written_as(&value, &more));
            let mut bytes = written.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = other;
            if let Ok(changed) = String::from_utf8(bytes) && changed != written {
                prop_assert!(!is_written_as(&value, &changed));
            }
        }
    }

    proptest! {
        #[test]
        fn control_characters_are_found(text in "[\\x00-\\x7fé]{0,40}") {
            prop_assert_eq!(has_control(text.as_bytes()), text.bytes().any(|byte| byte < 0x20));
        }
    }

    #[test]
    fn a_quote_inside_does_not_end_a_string() {
        assert!(!is_written_as(&[r#"a","b"#], r#"["a","b"]"#));
        assert!(is_written_as(&vec!["a", "b"], r#"["a","b"]"#));
    }
}
