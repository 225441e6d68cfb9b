use super::*;

#[test]
fn starts_switched_off() {
    let mut b = Board::new(&[]);
    let p = b.picture();
    assert_eq!((p.width, p.height), (640, 480));
}
