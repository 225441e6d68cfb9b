//! Each area against its committed floor (`ratchet.json`). A floor of zero (the binary under test is not built, say)
//! is met by anything; the numbers are printed.

use rqemu_compat::areas::{area, Sides};
use rqemu_compat::bins::require_qemu;
use rqemu_compat::score;

fn check(name: &str) {
    require_qemu();
    let area = area(name).expect("a known area");
    let first = score::check(&area.report(&Sides::from_env()));
    // A row may fail for reasons of the machine (a port in use, a slow start): below the floor, look twice.
    let result = first.or_else(|_| score::check(&area.report(&Sides::from_env())));
    if let Err(e) = result {
        panic!("{e}");
    }
}

macro_rules! areas {
    ($($test:ident)*) => {$(
        #[test]
        fn $test() {
            check(stringify!($test));
        }
    )*

        #[test]
        fn every_area_has_a_test() {
            let tested = [$(stringify!($test)),*];
            let all: Vec<&str> = rqemu_compat::areas::AREAS.iter().map(|a| a.name).collect();
            assert_eq!(all, tested);
        }
    };
}

areas! { help errors cmdlines qmp schema qom pci firmware guests hardware processor boot usernet }
