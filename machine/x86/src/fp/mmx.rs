//! MMX instructions of two registers.

use std::arch::asm;

use iced_x86::Code;

use crate::exec::Handler;
use crate::mmx_rows;

/// The handler of such an instruction.
pub fn lookup(code: Code) -> Option<Handler> {
    mmx_rows! { code;
        Pabsb_mm_mmm64 => "pabsb", 8;
        Pabsd_mm_mmm64 => "pabsd", 8;
        Pabsw_mm_mmm64 => "pabsw", 8;
        Packssdw_mm_mmm64 => "packssdw", 8;
        Packsswb_mm_mmm64 => "packsswb", 8;
        Packuswb_mm_mmm64 => "packuswb", 8;
        Paddb_mm_mmm64 => "paddb", 8;
        Paddd_mm_mmm64 => "paddd", 8;
        Paddq_mm_mmm64 => "paddq", 8;
        Paddsb_mm_mmm64 => "paddsb", 8;
        Paddsw_mm_mmm64 => "paddsw", 8;
        Paddusb_mm_mmm64 => "paddusb", 8;
        Paddusw_mm_mmm64 => "paddusw", 8;
        Paddw_mm_mmm64 => "paddw", 8;
        Pand_mm_mmm64 => "pand", 8;
        Pandn_mm_mmm64 => "pandn", 8;
        Pavgb_mm_mmm64 => "pavgb", 8;
        Pavgw_mm_mmm64 => "pavgw", 8;
        Pcmpeqb_mm_mmm64 => "pcmpeqb", 8;
        Pcmpeqd_mm_mmm64 => "pcmpeqd", 8;
        Pcmpeqw_mm_mmm64 => "pcmpeqw", 8;
        Pcmpgtb_mm_mmm64 => "pcmpgtb", 8;
        Pcmpgtd_mm_mmm64 => "pcmpgtd", 8;
        Pcmpgtw_mm_mmm64 => "pcmpgtw", 8;
        Phaddd_mm_mmm64 => "phaddd", 8;
        Phaddsw_mm_mmm64 => "phaddsw", 8;
        Phaddw_mm_mmm64 => "phaddw", 8;
        Phsubd_mm_mmm64 => "phsubd", 8;
        Phsubsw_mm_mmm64 => "phsubsw", 8;
        Phsubw_mm_mmm64 => "phsubw", 8;
        Pmaddubsw_mm_mmm64 => "pmaddubsw", 8;
        Pmaddwd_mm_mmm64 => "pmaddwd", 8;
        Pmaxsw_mm_mmm64 => "pmaxsw", 8;
        Pmaxub_mm_mmm64 => "pmaxub", 8;
        Pminsw_mm_mmm64 => "pminsw", 8;
        Pminub_mm_mmm64 => "pminub", 8;
        Pmulhrsw_mm_mmm64 => "pmulhrsw", 8;
        Pmulhuw_mm_mmm64 => "pmulhuw", 8;
        Pmulhw_mm_mmm64 => "pmulhw", 8;
        Pmullw_mm_mmm64 => "pmullw", 8;
        Pmuludq_mm_mmm64 => "pmuludq", 8;
        Por_mm_mmm64 => "por", 8;
        Psadbw_mm_mmm64 => "psadbw", 8;
        Pshufb_mm_mmm64 => "pshufb", 8;
        Psignb_mm_mmm64 => "psignb", 8;
        Psignd_mm_mmm64 => "psignd", 8;
        Psignw_mm_mmm64 => "psignw", 8;
        Pslld_mm_mmm64 => "pslld", 8;
        Psllq_mm_mmm64 => "psllq", 8;
        Psllw_mm_mmm64 => "psllw", 8;
        Psrad_mm_mmm64 => "psrad", 8;
        Psraw_mm_mmm64 => "psraw", 8;
        Psrld_mm_mmm64 => "psrld", 8;
        Psrlq_mm_mmm64 => "psrlq", 8;
        Psrlw_mm_mmm64 => "psrlw", 8;
        Psubb_mm_mmm64 => "psubb", 8;
        Psubd_mm_mmm64 => "psubd", 8;
        Psubq_mm_mmm64 => "psubq", 8;
        Psubsb_mm_mmm64 => "psubsb", 8;
        Psubsw_mm_mmm64 => "psubsw", 8;
        Psubusb_mm_mmm64 => "psubusb", 8;
        Psubusw_mm_mmm64 => "psubusw", 8;
        Psubw_mm_mmm64 => "psubw", 8;
        Punpckhbw_mm_mmm64 => "punpckhbw", 8;
        Punpckhdq_mm_mmm64 => "punpckhdq", 8;
        Punpckhwd_mm_mmm64 => "punpckhwd", 8;
        Punpcklbw_mm_mmm32 => "punpcklbw", 4;
        Punpckldq_mm_mmm32 => "punpckldq", 4;
        Punpcklwd_mm_mmm32 => "punpcklwd", 4;
        Pxor_mm_mmm64 => "pxor", 8;
    }
}
