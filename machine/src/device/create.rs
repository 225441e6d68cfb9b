//! The one way a device comes into being: `-device`, `device_add`, boards and controllers all end here.

use super::{Attach, BusId, Cx, DevId, Place, RealizeCx};
use crate::machine::Machine;
use crate::qom::{self, ClassInfo, DeviceClass, PropInput};
use crate::{qerr, QError, QResult};

/// One `-global` (or machine-version compat) value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalProp {
    /// Class it applies to, and everything that derives from it.
    pub driver: String,
    /// Property.
    pub property: String,
    /// Value as text.
    pub value: String,
    /// An unknown property is an error (user's `-global`), not skipped (compat).
    pub strict: bool,
}

impl GlobalProp {
    /// Sets the value on an instance of `class`.
    ///
    /// # Errors
    /// Unknown property (if the value is the user's) or bad value.
    pub fn apply(&self, class: &ClassInfo, p: &mut dyn DeviceClass) -> QResult<()> {
        let place = || format!("can't apply global {}.{}={}: ", self.driver, self.property, self.value);
        let known = p
            .set_prop(class.name, &self.property, &PropInput::Str(&self.value))
            .map_err(|e| e.prepend(&place()))?;
        if !known && self.strict {
            return Err(qerr!("Property '{}.{}' not found", class.name, self.property).prepend(&place()));
        }
        Ok(())
    }
}

impl Machine {
    /// Creates and realizes a device. Values are applied in the order class default, globals, `props`.
    ///
    /// # Errors
    /// Unknown or bad properties, and whatever `realize` reports; nothing of the device stays behind then.
    pub fn add_device(
        &mut self,
        class: &'static ClassInfo,
        bus: Option<BusId>,
        place: Place,
        props: &[(&str, PropInput<'_>)],
    ) -> QResult<DevId> {
        let create =
            class.create.ok_or_else(|| qerr!("Parameter 'driver' expects a non-abstract device type"))?;
        let mut p = create();
        for g in self.globals.clone().iter().filter(|g| qom::is_a(class, &g.driver)) {
            g.apply(class, &mut *p)?;
        }
        for (name, input) in props {
            qom::set_prop(class, &mut *p, name, input)?;
        }
        let id = self.tree.add(class, p, bus, place);
        self.realize(id).inspect_err(|_| self.undo_device(id))?;
        Ok(id)
    }

    fn realize(&mut self, id: DevId) -> QResult<()> {
        let Some(node) = self.tree.get_mut(id) else { return Ok(()) };
        // The properties leave the node while realize runs, so that the context can borrow the whole machine.
        let mut props = std::mem::replace(&mut node.props, Box::new(Empty));
        self.enter();
        let made = props.realize(&mut RealizeCx { cx: Cx { m: self, dev: id } });
        self.leave();
        let place = self.pci_place(id);
        let Some(node) = self.tree.get_mut(id) else { return Ok(()) };
        node.props = props;
        node.dev = Some(made?);
        if let Some((_, devfn)) = place {
            // The slot that was chosen, for whoever looks at the properties.
            node.props.set_prop(node.class.name, "addr", &PropInput::Json(&devfn.into()))?;
        }
        node.realized = true;
        self.settle_if_idle();
        Ok(())
    }

    fn undo_device(&mut self, id: DevId) {
        for n in self.tree.remove(id) {
            self.mem.remove_device(n.id);
            self.timers.remove_device(n.id);
            self.net.remove_device(n.id);
            self.chardevs.remove_device(n.id);
            self.pci_forget(n.id);
        }
        self.settle_if_idle();
    }

    /// Creates a device of the board itself, found by class name, on `bus`.
    pub fn add_board_device(
        &mut self,
        class: &str,
        bus: Option<BusId>,
        props: &[(&str, PropInput<'_>)],
    ) -> QResult<DevId> {
        let place = self.tree.next_unattached();
        self.add_board_device_at(class, bus, place, props)
    }

    /// Like [`Self::add_board_device`], at a given place in the QOM tree.
    pub fn add_board_device_at(
        &mut self,
        class: &str,
        bus: Option<BusId>,
        place: Place,
        props: &[(&str, PropInput<'_>)],
    ) -> QResult<DevId> {
        let c = qom::class_by_name(class).ok_or_else(|| qerr!("unknown type '{class}'"))?;
        self.add_device(c, bus, place, props)
    }
}

impl RealizeCx<'_> {
    /// Hands `what` to the controller of the bus that this device sits on.
    pub fn attach_to_parent(&mut self, what: Attach) -> QResult<()> {
        let (Some(bus), Some(parent)) = (self.parent_bus(), self.parent_dev()) else {
            return Err(QError::generic("device has no parent bus"));
        };
        let child = self.id();
        self.cx
            .call(parent, |d, cx| match d.bus_host() {
                Some(h) => h.attach(cx, bus, child, what),
                None => Err(QError::generic("bus takes no devices")),
            })
            .unwrap_or_else(|| Err(QError::generic("bus controller is busy")))
    }
}

/// Stands in for a device's properties while it is being realized.
struct Empty;

impl qom::PropAccess for Empty {
    fn set_prop(&mut self, _: &str, _: &str, _: &PropInput<'_>) -> QResult<bool> {
        Ok(false)
    }
    fn get_prop(&self, _: &str) -> Option<qom::PropGet> {
        None
    }
}

impl qom::DeviceClass for Empty {
    fn realize(&mut self, _: &mut RealizeCx<'_>) -> QResult<Box<dyn super::Device>> {
        Err(QError::generic("device is being realized"))
    }
}
