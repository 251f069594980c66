//! Units that were sent and are not answered: what they hold back, and what their answers mean for those behind them.

use super::*;

impl Engine {
    pub(super) fn plan(
        &mut self,
        request: Option<PolicyRequest>,
        body: Option<DecisionBody>,
        act: Option<Act>,
    ) -> Unit {
        let id = self.unit_next;
        self.unit_next += 1;
        let body = body.map(Arc::new);
        let holds = self.holds(body.as_deref(), act.as_ref());
        let pending = Pending { id, request, body, act, holds };
        let unit = unit_of(&pending);
        carry_out(&mut self.speculative, &pending, None);
        self.hold(holds);
        self.pending.push_back(pending);
        unit
    }

    fn holds(&self, body: Option<&DecisionBody>, act: Option<&Act>) -> Holds {
        let changes = act.is_some_and(|act| match &act.payload {
            Payload::PolicyRuleAdded(_) | Payload::PolicyRuleRemoved(_) | Payload::IdentityCreated(_) => true,
            Payload::IdentityUpdated(e) => matches!(e.body.change, IdentityChange::Status { .. }),
            _ => false,
        });
        let counts = body.filter(|body| body.allows()).filter(|body| {
            self.speculative.rules().get(&body.deciding_rule).is_some_and(|stored| stored.rate.is_some())
        });
        match counts {
            _ if changes => Holds::Everything,
            // A full memory of rates blinds every limit.
            Some(_) if self.speculative.rates().is_full() => Holds::Everything,
            Some(body) => Holds::Requestor(body.requestor),
            None => Holds::Nothing,
        }
    }

    fn hold(&mut self, holds: Holds) {
        match holds {
            Holds::Nothing => {}
            Holds::Requestor(id) => *self.held.entry(id).or_default() += 1,
            Holds::Everything => self.held_all += 1,
        }
    }

    fn release(&mut self, holds: Holds) {
        match holds {
            Holds::Nothing => {}
            Holds::Requestor(id) => {
                if let Some(count) = self.held.get_mut(&id) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.held.remove(&id);
                    }
                }
            }
            Holds::Everything => self.held_all = self.held_all.saturating_sub(1),
        }
    }

    fn oldest(&mut self, id: u64) -> Result<Pending, OutOfOrder> {
        let expected = self.pending.front().map(|pending| pending.id);
        match self.pending.pop_front() {
            Some(pending) if pending.id == id => {
                self.release(pending.holds);
                Ok(pending)
            }
            _ => Err(OutOfOrder { got: id, expected }),
        }
    }

    /// The unit is durable. `entries` are its references in order.
    pub fn committed(&mut self, id: u64, entries: &[AxiomRef]) -> Result<Settled, OutOfOrder> {
        let pending = self.oldest(id)?;
        carry_out(&mut self.confirmed, &pending, Some(entries));
        // It has these effects already.
        entries.iter().for_each(|at| {
            self.speculative.advance(*at);
        });
        Ok(settled(&pending, entries))
    }

    /// The entry stands in the log since an earlier submission, so this decision was not recorded.
    pub fn duplicate(&mut self, id: u64, entries: &[AxiomRef]) -> Result<(Settled, Vec<Unit>), OutOfOrder> {
        let pending = self.oldest(id)?;
        Ok((settled(&pending, entries), self.evaluate_again()))
    }

    /// The unit is not in the log. Returns what must be sent in place of units already sent: those that come out
    /// otherwise without it. They keep their ids and their places.
    pub fn rejected(&mut self, id: u64) -> Result<Vec<Unit>, OutOfOrder> {
        self.oldest(id)?;
        Ok(self.evaluate_again())
    }

    /// The append channel is lost and nobody knows what landed: everything in flight is forgotten, and the feed tells.
    /// Returns the ids, to be answered as `AxiomUnavailable`.
    pub fn abandon(&mut self) -> Vec<u64> {
        self.held.clear();
        self.held_all = 0;
        self.speculative = self.confirmed.clone();
        self.pending.drain(..).map(|pending| pending.id).collect()
    }

    fn evaluate_again(&mut self) -> Vec<Unit> {
        self.speculative = self.confirmed.clone();
        let mut again = Vec::new();
        let mut pending = std::mem::take(&mut self.pending);
        (self.held_all, self.held) = (0, HashMap::new());
        for unit in &mut pending {
            if self.reconsider(unit) {
                again.push(unit_of(unit));
            }
            unit.holds = self.holds(unit.body.as_deref(), unit.act.as_ref());
            carry_out(&mut self.speculative, unit, None);
            self.hold(unit.holds);
        }
        self.pending = pending;
        again
    }

    /// True if the decision comes out otherwise than it was sent.
    fn reconsider(&self, unit: &mut Pending) -> bool {
        let (Some(request), Some(sent)) = (&unit.request, &unit.body) else { return false };
        let Ok(mut body) = evaluate(&self.speculative, request, sent.timestamp) else { return false };
        let same_reason = |a: &Option<String>, b: &Option<String>| {
            a.as_deref().map(plain_reason) == b.as_deref().map(plain_reason)
        };
        if same_reason(&body.reason, &sent.reason) {
            body.reason.clone_from(&sent.reason);
        }
        if body == **sent {
            return false;
        }
        if !body.allows() {
            unit.act = None;
        }
        unit.body = Some(Arc::new(body));
        true
    }
}

fn settled(pending: &Pending, entries: &[AxiomRef]) -> Settled {
    let decision = pending.body.is_some().then(|| entries.first().copied()).flatten();
    let entry = pending.act.is_some().then(|| entries.last().copied()).flatten();
    Settled { decision, entry, allowed: pending.body.as_ref().is_none_or(|body| body.allows()) }
}

fn unit_of(pending: &Pending) -> Unit {
    Unit {
        id: pending.id,
        decision: pending.body.as_ref().map(|body| cbor::encode(body.as_ref())),
        entry: pending.act.as_ref().map(|act| act.entry.clone()),
        allows: pending.body.as_ref().is_none_or(|body| body.allows()),
    }
}

/// Puts a unit's effects into a state; without references while it is on its way.
fn carry_out(state: &mut PolicyState, pending: &Pending, entries: Option<&[AxiomRef]>) {
    let mut entries = entries.map(|entries| entries.iter().copied());
    let mut next = || entries.as_mut().map(Iterator::next);
    if let Some(body) = &pending.body {
        match next() {
            None => state.fold_decision(None, body),
            Some(at) => {
                if let Some(at) = at.filter(|at| state.advance(*at)) {
                    state.fold_decision(Some(at), body);
                }
            }
        }
    }
    let Some(act) = &pending.act else { return };
    let at = match next() {
        None => None,
        Some(Some(at)) if state.advance(at) => Some(at),
        Some(_) => return,
    };
    state.fold(at, &act.payload);
    if let Some((request, payload)) = act.uses {
        state.use_up(&request, Used { payload, entry: at });
    }
}
