//! One netlink message: a header, a fixed part, and attributes that may hold attributes.
//!
//! Lengths are 16 bits wide in attributes and are the caller's to keep: nothing dewar says comes near 64 KiB.
//!
//! Source: linux/netlink.h.

use rustix::io::Errno;

/// `struct nlmsghdr`
pub const HEADER_BYTES: usize = 16;
/// Of messages and of attributes.
const ALIGNMENT: usize = 4;
/// `struct nlattr`
const ATTRIBUTE_BYTES: usize = 4;
/// What is left of an attribute's kind without the flags for "nested" and "network byte order".
const KIND_MASK: u16 = 0x3fff;

/// A request being written. Everything is appended; attributes are padded as they must be.
#[derive(Clone, Debug)]
pub struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// `kind` and `flags` as the protocol has them; that it is a request goes without saying.
    pub fn new(kind: u16, flags: u16) -> Message {
        Message { kind, flags: flags | libc::NLM_F_REQUEST as u16, body: Vec::new() }
    }

    /// Bytes as they are: the fixed part, whose fields are the caller's.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Message {
        self.body.extend_from_slice(bytes);
        self
    }

    /// An attribute of bytes.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Message {
        let length = u16::try_from(ATTRIBUTE_BYTES + value.len()).unwrap_or(u16::MAX);
        self.put(&length.to_ne_bytes()).put(&kind.to_ne_bytes()).put(value).pad()
    }

    /// An attribute of the attributes that `fill` appends.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) -> &mut Message {
        let start = self.body.len();
        self.put(&[0; 2]).put(&(kind | libc::NLA_F_NESTED as u16).to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.body.len() - start).unwrap_or(u16::MAX);
        self.body[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Message {
        self.attribute(kind, &[value])
    }

    /// In the machine's byte order.
    pub fn u16(&mut self, kind: u16, value: u16) -> &mut Message {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// In the machine's byte order.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Message {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// In network byte order, as netfilter has its numbers.
    #[cfg(test)]
    pub fn be16(&mut self, kind: u16, value: u16) -> &mut Message {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// In network byte order.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Message {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// In network byte order.
    pub fn be64(&mut self, kind: u16, value: u64) -> &mut Message {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Text with the NUL the kernel wants.
    pub fn string(&mut self, kind: u16, value: &str) -> &mut Message {
        let length = u16::try_from(ATTRIBUTE_BYTES + value.len() + 1).unwrap_or(u16::MAX);
        self.put(&length.to_ne_bytes()).put(&kind.to_ne_bytes()).put(value.as_bytes()).put(&[0]).pad()
    }

    fn pad(&mut self) -> &mut Message {
        self.body.resize(self.body.len().next_multiple_of(ALIGNMENT), 0);
        self
    }

    /// With its header and padding.
    pub(super) fn len(&self) -> usize {
        HEADER_BYTES + self.body.len().next_multiple_of(ALIGNMENT)
    }

    /// Begins or ends a transaction, if the message is netfilter's: kernels before 6.10 do not acknowledge it.
    pub(super) fn is_batch_end(&self) -> bool {
        matches!(i32::from(self.kind), libc::NFNL_MSG_BATCH_BEGIN | libc::NFNL_MSG_BATCH_END)
    }

    /// Appends the message as it crosses over.
    pub(super) fn write(&self, to: &mut Vec<u8>, sequence: u32, more_flags: u16) {
        let length = u32::try_from(HEADER_BYTES + self.body.len()).unwrap_or(u32::MAX);
        to.extend_from_slice(&length.to_ne_bytes());
        to.extend_from_slice(&self.kind.to_ne_bytes());
        to.extend_from_slice(&(self.flags | more_flags).to_ne_bytes());
        to.extend_from_slice(&sequence.to_ne_bytes());
        // The sender's port: the kernel knows it.
        to.extend_from_slice(&[0; 4]);
        to.extend_from_slice(&self.body);
        to.resize(to.len().next_multiple_of(ALIGNMENT), 0);
    }
}

/// One message of the kernel's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    /// Whose doing it is, in news.
    pub(super) port: u32,
    /// What follows the header.
    pub(super) payload: &'a [u8],
}

impl Reply<'_> {
    /// Of an acknowledgement or the end of a list: what went wrong, if something did.
    pub(super) fn errno(&self) -> Option<Errno> {
        match number(self.payload, 0).cast_signed() {
            code if code < 0 => Some(Errno::from_raw_os_error(-code)),
            _ => None,
        }
    }

    /// The kernel's words in an acknowledgement; empty for none.
    pub(super) fn explanation(&self) -> String {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return String::new();
        }
        // Behind the error stands the request's header (and, unless capped, the request); the end of a list has the
        // error alone.
        let start = match i32::from(self.kind) {
            libc::NLMSG_DONE => 4,
            _ if self.flags & NLM_F_CAPPED != 0 => 4 + HEADER_BYTES,
            _ => 4 + (number(self.payload, 4) as usize).next_multiple_of(ALIGNMENT),
        };
        attributes(self.payload.get(start..).unwrap_or_default())
            .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
            .map_or_else(String::new, |(_, value)| text(value))
    }
}

/// linux/netlink.h: the acknowledgement has no copy of the request.
const NLM_F_CAPPED: u16 = 0x100;
/// linux/netlink.h: the acknowledgement has attributes.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The messages of a datagram; what is cut short is left out.
pub(super) fn replies(mut bytes: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let length = number(bytes, 0) as usize;
        if length < HEADER_BYTES {
            return None;
        }
        let message = bytes.get(..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(Reply {
            kind: short(message, 4),
            flags: short(message, 6),
            sequence: number(message, 8),
            port: number(message, 12),
            payload: &message[HEADER_BYTES..],
        })
    })
}

/// Attributes: kind without its flags, and value.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(short(bytes, 0));
        if length < ATTRIBUTE_BYTES {
            return None;
        }
        let attribute = bytes.get(..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some((short(attribute, 2) & KIND_MASK, &attribute[ATTRIBUTE_BYTES..]))
    })
}

/// The text of an attribute, without the NUL.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// Two bytes in the machine's order; zero where there are none.
pub fn short(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |two| u16::from_ne_bytes([two[0], two[1]]))
}

/// Four bytes in the machine's order; zero where there are none.
pub fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |four| u32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut message = Message::new(7, 0x100);
        message.put(&[9; 4]).string(1, "lo").nested(2, |inner| {
            inner.u8(3, 4).be16(4, 0x1234).attribute(5, &[]);
        });
        let mut bytes = Vec::new();
        message.write(&mut bytes, 42, 4);
        assert_eq!(bytes.len(), message.len());
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let reply = replies(&bytes).next().unwrap();
        assert_eq!((reply.kind, reply.flags, reply.sequence), (7, 0x105, 42));
        let outer: Vec<_> = attributes(&reply.payload[4..]).collect();
        assert_eq!(outer[0], (1, &b"lo\0"[..]));
        assert_eq!(outer[1].0, 2, "without the flag for nested");
        let inner: Vec<_> = attributes(outer[1].1).collect();
        assert_eq!(inner, [(3, &[4][..]), (4, &[0x12, 0x34][..]), (5, &[][..])]);
    }

    #[test]
    fn torn_bytes_end_the_reading() {
        let mut bytes = Vec::new();
        Message::new(1, 0).u32(1, 2).write(&mut bytes, 1, 0);
        let whole = bytes.clone();
        for cut in 0..whole.len() {
            assert_eq!(replies(&whole[..cut]).count(), 0);
        }
        // A length of less than a header, or beyond the end, is nobody's.
        bytes[0] = 3;
        assert_eq!(replies(&bytes).count(), 0);
        assert_eq!(attributes(&[255, 255, 1, 0, 1]).count(), 0);
        assert_eq!(attributes(&[0, 0, 1, 0]).count(), 0);
    }

    #[test]
    fn the_kernels_words_are_found() {
        let mut tlv = Message::new(0, 0);
        tlv.string(NLMSGERR_ATTR_MSG, "because");
        let payload = [&(-22i32).to_ne_bytes()[..], &[0; 16], &tlv.body].concat();
        let flags = NLM_F_CAPPED | NLM_F_ACK_TLVS;
        let reply = Reply { kind: libc::NLMSG_ERROR as u16, flags, sequence: 1, port: 0, payload: &payload };
        assert_eq!((reply.errno(), reply.explanation().as_str()), (Some(Errno::INVAL), "because"));
        let silent = Reply { payload: &payload[..20], ..reply };
        assert_eq!(silent.explanation(), "");
    }
}
