//! Removes from the object what only debuggers read, three quarters of it.

use std::{error::Error, fs, path::Path};

use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// Writes `built` to `object` without its DWARF sections; BTF stays.
///
/// # Errors
/// `built` cannot be read or is not an ELF file, or `object` cannot be written.
pub fn strip_debug_info(built: &Path, object: &Path) -> Result<(), Box<dyn Error>> {
    let whole = fs::read(built)?;
    let mut builder = Builder::read(whole.as_slice())?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug") || name.starts_with(b".rel.debug");
    }
    builder.delete_orphans();
    // LLVM writes one table for the names of symbols and sections; the builder needs two.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    fs::write(object, stripped)?;
    Ok(())
}
