//! A software x86-64 CPU.
//!
//! # How it works
//! - [`Cpu::run`] executes *blocks*: runs of [`exec::Op`]s decoded once by iced-x86 and cached by (host page, RIP,
//!   mode). A handler ([`exec::Handler`]) executes its operation and calls the next one ([`exec::next`]), so that in
//!   optimised builds a block is a chain of tail calls; the loop in `run.rs` goes from block to block.
//! - **Writing a handler**: use [`handler!`]: `handler! { pub fn addps(cpu, op) { ...; Ok(()) } }`. The body returns
//!   [`fault::R<()>`]; use `?` on memory accesses. Rules: *all* reads, checks and faults come before the first change
//!   of architectural state (a failed instruction is restarted); a handler may be run again after `Err`.
//!   An instruction that changes the mode or must be followed by a look at interrupts uses [`handler_recheck!`] *and* must
//!   be marked as ending its block (see `exec::select`; floating-point handlers never end blocks).
//! - **Operands**: see [`exec::Op`]. `op.has(Op::MEM)` tells a memory operand from a register one; general registers:
//!   `cpu.reg::<u32>(op.r[0])`, `cpu.set_reg::<u64>(op.r[0], v)`; vectors: `cpu.ymm[op.r[1] as usize].0`. Immediate:
//!   `op.imm8()`. Better than testing flags at run time: have `lookup` return one of several handlers. `lookup` only
//!   sees the `Code`, so generic "rm" handlers test `MEM` (a predictable branch).
//! - **Memory**: `cpu.read::<u32>(op)?`, `cpu.write(op, v)?`, `cpu.read128(op)?`, `read128_aligned` (#GP if misaligned),
//!   `read256`, `read_bytes::<10>(op)?`, `write_bytes`, for FXSAVE-sized things `cpu.lin_r(op, n)?` + `read_buf`,
//!   `cpu.lin_w(op, n)?` + `probe_w` + `write_buf` (checks everything before it writes).
//! - **Exceptions**: `return cpu.ud()`, `cpu.gp(0)`, `cpu.raise(Exception::new(Exception::XM))`. CR0.EM/TS, CR4.OSFXSR and XCR0 were
//!   checked at decode time (`exec::decode::fp_gate`; the block key contains them), so were the CPUID features
//!   ([`cpuid::Model::allows`]). x87 handlers check pending exceptions themselves (CR0.NE clear: `cpu.bus().ferr()`).
//! - **Flags**: `cpu.fl = Flags::from_bits(rflags::ZF | rflags::CF)` replaces all six arithmetic flags
//!   (COMISS, PTEST, PCMPISTRI).
//! - **Memory writes into code**, TLB, faults and dirty bits are taken care of by the accessors.
//!
//! The machine is behind [`bus::Bus`]; other threads reach a running CPU through [`bus::RunControl`].

#![allow(clippy::new_without_default)]

pub mod block;
pub mod bus;
pub mod code;
pub mod cpu;
pub mod cpuid;
mod debug;
pub mod embed;
pub mod exec;
pub mod fault;
pub mod flags;
pub mod fp;
pub mod mmu;
pub mod msr;
mod nobus;
pub mod points;
pub mod run;
pub mod seg;
pub mod state;
pub mod tlb;

pub use bus::{Bus, Page, Request, RunControl};
pub use code::CodeMap;
pub use cpu::{Cpu, Exit};
pub use cpuid::Model;
