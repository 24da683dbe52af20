use aya_obj::{
    Object, Program, ProgramSection,
    generated::{bpf_func_id, bpf_insn},
};

use super::object;
use crate::kernel::files::IN_FLIGHT;

/// lockdown=confidentiality rejects these for every program, and some kernels' operators
/// reject the last.
const REFUSED: [bpf_func_id; 7] = [
    bpf_func_id::BPF_FUNC_probe_read,
    bpf_func_id::BPF_FUNC_probe_read_str,
    bpf_func_id::BPF_FUNC_probe_read_kernel,
    bpf_func_id::BPF_FUNC_probe_read_kernel_str,
    bpf_func_id::BPF_FUNC_snprintf_btf,
    bpf_func_id::BPF_FUNC_probe_write_user,
    bpf_func_id::BPF_FUNC_override_return,
];

/// The helpers that the programs call, by number: those that copy kernel memory (the kprobe set,
/// and the search that is loaded only where the one without copies is rejected), or all others.
fn helpers(of_copying: bool) -> Vec<u32> {
    /// BPF_JMP and BPF_CALL; the source register says what kind of call.
    const CALL: u8 = 0x85;
    let object = Object::parse(&object().unwrap()).unwrap();
    let is_kprobe =
        |section: &_| matches!(section, ProgramSection::KProbe | ProgramSection::KRetProbe);
    let [_, copied] = IN_FLIGHT;
    let copying = object.programs.iter().filter(|(name, _)| *name == copied);
    let kprobes = object.programs.iter().filter(|(_, program)| is_kprobe(&program.section));
    let copying: Vec<_> =
        copying.chain(kprobes).map(|(_, program)| Program::function_key(program)).collect();
    assert!(copying.len() > 1, "{copied} is not in the object");
    let functions = object.functions.iter();
    let functions = functions.filter(|(key, _)| copying.contains(key) == of_copying);
    let instructions = functions.flat_map(|(_, function)| &function.instructions);
    instructions
        .filter(|instruction| instruction.code == CALL && instruction.src_reg() == 0)
        .map(|instruction| instruction.imm.cast_unsigned())
        .collect()
}

/// Programs that copy are not used there.
#[test]
fn no_helper_is_called_that_lockdown_refuses() {
    assert!(helpers(true).contains(&(bpf_func_id::BPF_FUNC_probe_read_kernel as u32)));
    let called = helpers(false);
    let has = |helper: bpf_func_id| called.contains(&(helper as u32));
    assert!(has(bpf_func_id::BPF_FUNC_ringbuf_reserve), "the scan misses calls: {called:?}");
    for helper in REFUSED {
        assert!(!has(helper), "{helper:?} is called");
    }
}

/// The deepest place of its stack that a program names, in bytes.
fn stack_depth(instructions: &[bpf_insn]) -> i32 {
    const FRAME: u8 = 10;
    const LOAD: u8 = 1;
    const STORES: [u8; 2] = [2, 3];
    /// BPF_ALU64, BPF_MOV and BPF_X; BPF_ALU64, BPF_ADD and BPF_K.
    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    let mut is_frame = [false; 16];
    let mut deepest = 0;
    for instruction in instructions {
        let (to, from) = (instruction.dst_reg(), instruction.src_reg());
        let class = instruction.code & 7;
        let offset = match instruction.code {
            MOVE => {
                is_frame[usize::from(to)] = from == FRAME;
                continue;
            }
            ADD if is_frame[usize::from(to)] => instruction.imm,
            _ if class == LOAD && from == FRAME => instruction.off.into(),
            _ if STORES.contains(&class) && to == FRAME => instruction.off.into(),
            _ => continue,
        };
        deepest = deepest.max(-offset);
    }
    deepest
}

/// The kernel permits 512 bytes for a program and what it calls, up to 5.x in steps of 32
/// (`check_max_stack_depth`, kernel/bpf/verifier.c). `memset` and the like need one step.
#[test]
fn every_program_leaves_room_on_its_stack_for_a_call() {
    let object = Object::parse(&object().unwrap()).unwrap();
    let depths = object.functions.values().map(|function| stack_depth(&function.instructions));
    let deepest = depths.max().unwrap();
    assert!((256..=480).contains(&deepest), "{deepest} bytes, or the scan misses some");
}
