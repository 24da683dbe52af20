//! Reads of kernel structs, at offsets that user space resolved from BTF.
//!
//! The loads are direct, through pointers whose BTF type the verifier knows. So no
//! `bpf_probe_read_kernel` is needed, which lockdown=confidentiality rejects. A faulting load
//! reads as zero (`BPF_PROBE_MEM`). Only programs on kprobes get addresses without a type
//! ([`Untyped`]), which need that helper ([`copy`]).

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use portwatch_common::Layout;

/// Set by user space before load. The verifier sees a frozen constant.
#[unsafe(no_mangle)]
pub static LAYOUT: MaybeUninit<Layout> = MaybeUninit::zeroed();

/// Reads one field of [`LAYOUT`].
macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: the static consists of plain integers, all initialised; volatile keeps the
        // compiler from folding in the zeros that it was built with.
        unsafe { core::ptr::read_volatile(&raw const (*$crate::layout::LAYOUT.as_ptr()).$field) }
    }};
}

/// Loads a `$ty` at the field's offset from `$base`.
macro_rules! load {
    ($base:expr, $field:ident, $ty:ty) => {
        $crate::layout::load_at::<$ty, _>($base, $crate::layout::offset!($field))
    };
}

pub(crate) use {load, offset};

/// A pointer to a kernel struct: typed (`*const B`), or [`Untyped`].
pub trait Pointer: Copy {
    /// A pointer of this kind to another struct.
    type To<B>: Pointer;
    /// Whether the verifier knows the type, so that helpers take the pointer.
    const TYPED: bool;
    /// Returns the address.
    fn address(self) -> *const c_void;
    /// Loads a plain integer or a pointer, `offset` bytes after it.
    fn load<T: Copy>(self, offset: u32) -> T;

    /// Returns whether it is null.
    #[inline(always)]
    fn is_null(self) -> bool {
        self.address().is_null()
    }
}

impl<A> Pointer for *const A {
    type To<B> = *const B;
    const TYPED: bool = true;

    #[inline(always)]
    fn address(self) -> *const c_void {
        self.cast()
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the pointer came from the context or from another such load, and the offset
        // from the kernel's own BTF; the verifier checks both.
        unsafe { core::ptr::read_volatile(self.cast::<u8>().add(offset as usize).cast::<T>()) }
    }
}

/// An address in the kernel that the verifier takes for a number.
#[repr(transparent)]
pub struct Untyped<A>(*const A);

impl<A> Clone for Untyped<A> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Untyped<A> {}

impl<A> Untyped<A> {
    /// The address in a register.
    #[inline(always)]
    pub const fn at(address: u64) -> Self {
        Self(address as *const A)
    }
}

impl<A> Pointer for Untyped<A> {
    type To<B> = Untyped<B>;
    const TYPED: bool = false;

    #[inline(always)]
    fn address(self) -> *const c_void {
        self.0.cast()
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> T {
        copy(self.0.cast(), offset)
    }
}

/// Copies a plain integer or a pointer, `offset` bytes after `base`; zero if the address is not
/// mapped.
#[inline(always)]
pub fn copy<T: Copy>(base: *const c_void, offset: u32) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    let from = base.wrapping_byte_add(offset as usize);
    // SAFETY: the helper checks the address, and writes all bytes of the value, zeros if it
    // fails. Callers ask for integers and pointers, for which every value is valid.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from);
        value.assume_init()
    }
}

/// Loads a `T`, `offset` bytes after `base`.
#[inline(always)]
pub fn load_at<T: Copy, P: Pointer>(base: P, offset: u32) -> T {
    base.load(offset)
}

/// Returns whether the kernel has the field.
macro_rules! has {
    ($field:ident) => {
        $crate::layout::offset!($field) != portwatch_common::ABSENT
    };
}

pub(crate) use has;
