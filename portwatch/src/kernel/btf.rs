//! Reads member offsets from BTF, the kernel's description of its own types
//! (Documentation/bpf/btf.rst). Total over any bytes.

use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// More than the deepest nesting of types or members in any kernel.
const MAX_DEPTH: u32 = 32;

/// Why an offset is not available.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// The bytes are not BTF of this byte order.
    #[error("not BTF in this machine's byte order")]
    Magic,
    /// The bytes end in the middle of a type.
    #[error("BTF is cut short")]
    Truncated,
    /// A kind that this code does not know, so the following types cannot be located.
    #[error("unknown BTF kind {0}")]
    Kind(u32),
    /// The kernel has no such type.
    #[error("the kernel has no struct {0}")]
    NoType(String),
    /// The struct has no such member.
    #[error("struct {of} has no member {member}")]
    NoMember {
        /// The struct.
        of: String,
        /// The member, with its path.
        member: String,
    },
}

/// The position of a member in its struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// Bits from the struct's start.
    pub bits: u32,
}

impl Offset {
    /// Returns the bytes from the struct's start, rounded down for a bit field.
    pub fn byte(self) -> u32 {
        self.bits / 8
    }

    /// Returns the bit within [`Self::byte`].
    pub fn bit(self) -> u32 {
        self.bits % 8
    }
}

/// Types by id and structs by name.
pub struct Types<'a> {
    bytes: &'a [u8],
    strings: &'a [u8],
    /// The position of each type's header. Id 0 is void.
    positions: Vec<usize>,
    structs: HashMap<&'a [u8], u32>,
    functions: Vec<&'a [u8]>,
}

#[derive(Clone, Copy)]
struct Header {
    name: u32,
    kind: u32,
    count: usize,
    /// Whether member offsets carry bit-field sizes in their top byte.
    kind_flag: bool,
    /// A size or a type id, by kind.
    size_or_type: u32,
}

impl<'a> Types<'a> {
    /// Indexes the types.
    ///
    /// # Errors
    /// The bytes are not BTF, end too early, or contain an unknown kind.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        if u16_at(bytes, 0)? != MAGIC {
            return Err(BtfError::Magic);
        }
        let header_len = u32_at(bytes, 4)? as usize;
        let section = |offset: u32, len: u32| {
            let start = header_len.checked_add(offset as usize)?;
            bytes.get(start..start.checked_add(len as usize)?)
        };
        let types = section(u32_at(bytes, 8)?, u32_at(bytes, 12)?).ok_or(BtfError::Truncated)?;
        let strings = section(u32_at(bytes, 16)?, u32_at(bytes, 20)?).ok_or(BtfError::Truncated)?;
        let mut this = Self {
            bytes: types,
            strings,
            positions: vec![usize::MAX],
            structs: HashMap::new(),
            functions: Vec::new(),
        };
        let mut at = 0;
        while at < types.len() {
            let header = header_at(types, at)?;
            let id = u32::try_from(this.positions.len()).map_err(|_| BtfError::Truncated)?;
            this.positions.push(at);
            let name = this.string(header.name);
            match header.kind {
                KIND_STRUCT if !name.is_empty() => {
                    // Several types may have the same name. In every kernel that was examined,
                    // the first one is that of the core kernel.
                    this.structs.entry(name).or_insert(id);
                }
                KIND_FUNC => this.functions.push(name),
                _ => {}
            }
            at += 12 + tail_len(header)?;
        }
        this.functions.sort_unstable();
        Ok(this)
    }

    /// Returns whether the kernel has a function of that name.
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.binary_search(&name.as_bytes()).is_ok()
    }

    /// Returns the offset of a member, given by a dotted path. Members of anonymous structs
    /// and unions are found as in C.
    ///
    /// # Errors
    /// The struct or the member does not exist.
    pub fn offset(&self, of: &str, path: &str) -> Result<Offset, BtfError> {
        let mut id =
            *self.structs.get(of.as_bytes()).ok_or_else(|| BtfError::NoType(of.to_owned()))?;
        let mut bits = 0u32;
        for name in path.split('.') {
            let (at, member) = self
                .member(id, name.as_bytes(), 0)?
                .ok_or_else(|| BtfError::NoMember { of: of.to_owned(), member: path.to_owned() })?;
            bits = bits.checked_add(at).ok_or(BtfError::Truncated)?;
            id = member;
        }
        Ok(Offset { bits })
    }

    /// Returns the bit offset and the type of the member `name` of the struct or union `id`.
    fn member(&self, id: u32, name: &[u8], depth: u32) -> Result<Option<(u32, u32)>, BtfError> {
        if depth > MAX_DEPTH {
            return Ok(None);
        }
        let (at, header) = self.resolve(id)?;
        if !matches!(header.kind, KIND_STRUCT | KIND_UNION) {
            return Ok(None);
        }
        for index in 0..header.count {
            let entry = at + 12 + index * 12;
            let member_name = self.string(u32_at(self.bytes, entry)?);
            let member_type = u32_at(self.bytes, entry + 4)?;
            let raw = u32_at(self.bytes, entry + 8)?;
            let bits = if header.kind_flag { raw & 0x00ff_ffff } else { raw };
            if member_name == name {
                return Ok(Some((bits, member_type)));
            }
            if member_name.is_empty()
                && let Some((inner, found)) = self.member(member_type, name, depth + 1)?
            {
                return Ok(Some((bits.saturating_add(inner), found)));
            }
        }
        Ok(None)
    }

    /// Follows typedefs and qualifiers to the type itself.
    fn resolve(&self, mut id: u32) -> Result<(usize, Header), BtfError> {
        for _ in 0..MAX_DEPTH {
            let at = *self.positions.get(id as usize).ok_or(BtfError::Truncated)?;
            let header = header_at(self.bytes, at)?;
            match header.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = header.size_or_type;
                }
                _ => return Ok((at, header)),
            }
        }
        Err(BtfError::Truncated)
    }

    fn string(&self, offset: u32) -> &'a [u8] {
        self.strings
            .get(offset as usize..)
            .and_then(|rest| rest.split(|&byte| byte == 0).next())
            .unwrap_or_default()
    }
}

fn header_at(bytes: &[u8], at: usize) -> Result<Header, BtfError> {
    let info = u32_at(bytes, at.checked_add(4).ok_or(BtfError::Truncated)?)?;
    Ok(Header {
        name: u32_at(bytes, at)?,
        kind: (info >> 24) & 0x1f,
        count: (info & 0xffff) as usize,
        kind_flag: info >> 31 == 1,
        size_or_type: u32_at(bytes, at + 8)?,
    })
}

/// Returns the number of bytes after a type's 12-byte header.
fn tail_len(header: Header) -> Result<usize, BtfError> {
    Ok(match header.kind {
        // Kinds without a tail: int has one word, the reference kinds none.
        1 | KIND_VAR | KIND_DECL_TAG => 4,
        2 | 7 | KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_FUNC | 16
        | KIND_TYPE_TAG => 0,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => header.count * 12,
        KIND_ENUM | KIND_FUNC_PROTO => header.count * 8,
        other => return Err(BtfError::Kind(other)),
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, BtfError> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], BtfError> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(BtfError::Truncated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_an_error_or_types(mut bytes: Vec<u8>, valid_head: bool) {
            if valid_head && bytes.len() > 24 {
                bytes[..2].copy_from_slice(&MAGIC.to_ne_bytes());
                bytes[4..8].copy_from_slice(&24u32.to_ne_bytes());
            }
            if let Ok(types) = Types::parse(&bytes) {
                let _ = types.offset("sock", "a.b");
            }
        }
    }

    #[test]
    fn this_kernel_has_the_documented_members() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
        let types = Types::parse(&bytes).unwrap();
        // include/net/sock.h: the first three members of sock_common are two
        // 4-byte addresses, a hash, then ports.
        assert_eq!(types.offset("sock_common", "skc_daddr").unwrap().byte(), 0);
        assert_eq!(types.offset("sock_common", "skc_rcv_saddr").unwrap().byte(), 4);
        assert_eq!(types.offset("sock_common", "skc_num").unwrap().byte(), 14);
        assert_eq!(types.offset("sock", "__sk_common.skc_num").unwrap().byte(), 14);
        assert!(types.has_function("inet_csk_get_port"));
        assert!(!types.has_function("inet_csk_get_portx"));
        assert!(matches!(types.offset("sock", "nope"), Err(BtfError::NoMember { .. })));
        assert!(matches!(types.offset("no_such", "nope"), Err(BtfError::NoType(_))));
    }
}
