/* Chain replication of one chunk of one group: writes, epochs, in-sync set, crashes, catch-up, reconciliation, fence.
 *
 * One process chooses among guarded atomic steps of the metadata server (M), the members (i) and the clients; messages wait
 * in channels, so any delay and any order between channels is explored. docs/replication.md gives the rules that the steps follow.
 *
 * Content of a chunk is the set of writes applied to it (a bit each), so that a lost write is a missing bit. Version = epoch * 8 + counter.
 * Readers are not processes: `vis` holds all that some reader could have seen, taken after each step from every clean serving member.
 *
 * -DN members  -DC clients  -DK writes a client  -DF faults  -DDUR=mask of writes that are durable  -DPOWER (a crash may be a power cut)
 * -DSUSPECT (a fault may be the removal of a live member)  -DSYNC (client 0 syncs its first write)  -DFENCE (client 0 is fenced, client 1 succeeds it)
 * -DBUG_x: one rule broken, see tests/model/run.
 * -DTRACE: prints the state after each step, to read an error trail (spin -a -DTRACE ..., then spin -t -DTRACE ...).
 */
#ifndef N
#define N 2
#endif
#ifndef C
#define C 1
#endif
#ifndef K
#define K 1
#endif
#ifndef F
#define F 1
#endif
#ifndef DUR
#define DUR 0
#endif
#define NONE   N
#define ALLM   ((1<<N)-1)
#define ALLW   ((1<<(C*K))-1)
#define FB     ((1<<K)-1)		/* writes of client 0 */
#define CTR    8
#define BIT(x) (1<<(x))

#define DOWN   0
#define BOOTED 1	/* restarted and registered; not named by a configuration since */
#define OUT    2
#define JOIN   3
#define RECOV  4
#define ROLL   5
#define SERV   6

/* metadata server: journaled configuration */
byte m_epoch = 1, m_act = 1;	/* m_act: highest epoch for which "activated" was sent */
byte m_set = ALLM, m_join = NONE, m_wait;	/* m_wait: removed members that may still serve */
byte ord[N], m_n = N;
bit m_recov;
byte cmpl;	/* joiner's complete(epoch), on its way */

/* members */
byte st[N], ep[N], nx[N], pv[N], jn[N], ver[N], mk[N], sver[N], smk[N];
bit jh[N];	/* tail: hops for this chunk go on to the joiner */
bit has[N];	/* joiner: holds the chunk */
bit dirty[N];
chan fw[N] = [2] of { byte, byte, byte };	/* epoch, version, content */
chan ak[N] = [2] of { byte, byte, byte };
byte cp_ep, cp_ver, cp_mk;	/* copy to the joiner, on a connection of its own */

byte faults = F;
byte done;	/* writes whose client has its answer */

/* what the properties remember */
byte acked, vis, com, lossep, pc, durm = DUR;
#ifdef SYNC
byte sy, m_reca, reca[N], v0;
bit sylost;
#endif
#ifdef FENCE
bit m_fence, granted, hasbase, fk[N];
byte m_fconf, base;
#endif
#ifdef BUG_ROLLBACK
byte pver[N], pmk[N];
#endif

hidden byte x, y, z, e_, v_, m_, t_, q_;

#define INSET(i)   ((m_set >> (i)) & 1)
#define NEWBOOT(i) (st[i] == BOOTED && ep[i] == m_epoch)
#define LIVE(i)    (st[i] == ROLL || st[i] == SERV || st[i] == JOIN)
#define HEAD(i)    (pv[i] == NONE)
/* After a loss, what members of older epochs go on to commit and show was lost with it; only their durable answers promise anything. */
#define COUNTS(i)  (ep[i] > lossep)
#define TO(i)      (nx[i] != NONE -> nx[i] : (jh[i] -> jn[i] : NONE))	/* where hops of i go on to */
#define ROOM(i)    (TO(i) == NONE || nfull(fw[TO(i) % N]))
#define ROOMA(i)   (pv[i] == NONE || nfull(ak[pv[i] % N]))

/* masks over the set, computed by guards */
#if N == 2
#define OVER(p) ((p(0)) | ((p(1)) << 1))
#else
#define OVER(p) ((p(0)) | ((p(1)) << 1) | ((p(2)) << 2))
#endif
#define P_NEWBOOT(i) (INSET(i) && NEWBOOT(i))
#define P_DEAD(i)    (INSET(i) && (st[i] == DOWN || NEWBOOT(i)))
#define P_DOWN(i)    (INSET(i) && st[i] == DOWN)
#define P_LIVE(i)    (INSET(i) && LIVE(i))
#define P_REC(i)     (INSET(i) && st[i] == RECOV && ep[i] == m_epoch)

/* ---- properties, after each step ---- */
inline inv() {
#ifdef TRACE
	printf("@ E%d act%d set%d join%d wait%d rec%d cmpl%d cp%d.%d |", m_epoch, m_act, m_set, m_join, m_wait, m_recov, cmpl, cp_ep, cp_ver);
	x = 0;
	do :: x < N -> printf(" [st%d e%d v%d.%d m%d s%d d%d h%d%d q%d,%d]", st[x], ep[x], ver[x]/CTR, ver[x]%CTR, mk[x], smk[x], dirty[x], jh[x], has[x], len(fw[x]), len(ak[x])); x++
	:: else -> break od;
	printf(" done%d ack%d vis%d com%d\n", done, acked, vis, com);
#endif
	assert(m_set != 0);	/* (d) */
	x = 0;
	do
	:: x < N ->
		if
		:: st[x] == SERV ->
			assert(INSET(x) || ((m_wait >> x) & 1));	/* (d) */
			if :: !dirty[x] && COUNTS(x) -> vis = vis | mk[x] :: else fi
		:: else
		fi;
		x++
	:: else -> break
	od;
	x = 0;
	do
	:: x < N ->
		if
		:: st[x] == SERV && !dirty[x] -> assert(((vis | acked) & ~mk[x]) == 0)	/* (b): not backwards, also at a removed member */
		:: else
		fi;
		if
		:: INSET(x) ->
			assert((acked & durm & ~smk[x]) == 0);	/* (a) durable */
			if
			:: LIVE(x) -> assert(((vis | acked) & ~mk[x]) == 0)	/* (a), (b) */
			:: else
			fi
		:: else
		fi;
		y = x + 1;
		do
		:: y < N && ver[x] == ver[y] -> assert(mk[x] == mk[y]); y++	/* same version, same bytes */
		:: y < N && ver[x] != ver[y] -> y++
		:: else -> break
		od;
		x++
	:: else -> break
	od;
	assert((acked & ~com) == 0);	/* acknowledged => committed */
#ifdef FENCE
	x = 0;
	do
	:: x < N && granted && INSET(x) ->
		if
		:: !hasbase && st[x] == SERV && !dirty[x] -> hasbase = 1; base = mk[x] & FB
		:: else
		fi;
		x++
	:: x < N && !(granted && INSET(x)) -> x++
	:: else -> break
	od;
	x = 0;
	do
	:: x < N ->
		assert(!(hasbase && INSET(x) && LIVE(x)) || (mk[x] & FB & ~base) == 0);	/* (c) */
		x++
	:: else -> break
	od;
#endif
	x = 0; y = 0
}

/* Only a power cut while no other member of the set lives may lose what was not acknowledged as durable. */
inline losscheck() {
	if
	:: OVER(P_LIVE) == 0 && (pc & m_set) -> acked = acked & durm; vis = vis & acked; lossep = m_epoch; com = com & acked
	:: else
	fi
}

/* ---- metadata server ---- */
inline settle() {
#ifdef BUG_NO_REMOVE_CONFIRM
	if :: !m_recov -> m_act = m_epoch :: else fi
#else
	if :: !m_recov && m_wait == 0 -> m_act = m_epoch :: else fi
#endif
}

inline new_epoch() {
	m_epoch++;
	assert(m_epoch < 31);
#ifndef BUG_PROMOTE_STALE
	cmpl = 0;
#endif
#ifdef SYNC
	sy = 0;
#endif
#ifdef FENCE
#ifndef BUG_CONFIRM_OLD_EPOCH
	m_fconf = 0;
#endif
#endif
	settle()
}

inline cut(mask) {	/* takes members out of the set, order kept */
	m_set = m_set & ~(mask);
	x = 0; y = 0;
	do
	:: x < m_n && ((m_set >> ord[x]) & 1) -> z = ord[x]; ord[y] = z; y++; x++
	:: x < m_n && !((m_set >> ord[x]) & 1) -> x++
	:: else -> break
	od;
	m_n = y;
	do :: y < N -> ord[y] = NONE; y++ :: else -> break od;
	if
	:: m_join != NONE -> if :: st[m_join] == DOWN || NEWBOOT(m_join) -> m_join = NONE :: else fi
	:: else
	fi
}

/* Activation of its epoch lets a member serve. The variant lets it read at once and holds back only what answers clients. */
#ifdef BUG_READ_BEFORE_ACTIVATED
#define ACTIVATED(i) (ep[i] == m_epoch)
#define MAYANSWER(i) (pv[i] != NONE || ep[i] <= m_act)
#else
#define ACTIVATED(i) (ep[i] == m_act)
#define MAYANSWER(i) true
#endif

/* ---- members ---- */
inline sync(i) { sver[i] = ver[i]; smk[i] = mk[i] }

inline commit(i) { if :: COUNTS(i) -> com = com | mk[i] :: else fi }

inline sync_durable(i) {
#ifdef BUG_ACK_BEFORE_SYNC
	if :: HEAD(i) && (mk[i] & DUR & ~smk[i]) -> sync(i) :: else fi
#else
	if :: (mk[i] & DUR & ~smk[i]) -> sync(i) :: else fi
#endif
}

inline blank(i) { nx[i] = NONE; pv[i] = NONE; jn[i] = NONE; jh[i] = 0; has[i] = 0 }

inline drain(i) {
	do :: nempty(fw[i]) -> fw[i]?e_,v_,m_ :: empty(fw[i]) -> break od;
	do :: nempty(ak[i]) -> ak[i]?e_,v_,m_ :: empty(ak[i]) -> break od;
	if :: jn[i] == NONE && (st[i] == JOIN) -> cp_ep = 0; cp_ver = 0; cp_mk = 0 :: else fi
}

inline purge(i) {	/* what carries an older epoch is refused */
	x = len(fw[i]);
	do :: x > 0 -> fw[i]?e_,v_,m_; x--; if :: e_ >= ep[i] -> fw[i]!e_,v_,m_ :: else fi :: else -> break od;
	x = len(ak[i]);
	do :: x > 0 -> ak[i]?e_,v_,m_; x--; if :: e_ >= ep[i] -> ak[i]!e_,v_,m_ :: else fi :: else -> break od
}

inline send_fw(i, v, m) {	/* a receiver that is down or has a newer epoch refuses */
	t_ = TO(i);
	if
	:: t_ != NONE -> if :: st[t_] != DOWN && ep[t_] <= ep[i] -> fw[t_]!ep[i],v,m :: else fi
	:: else
	fi
}

inline send_ak(i, v, m) {
	t_ = pv[i];
	if
	:: t_ != NONE -> if :: st[t_] != DOWN && ep[t_] <= ep[i] -> ak[t_]!ep[i],v,m :: else fi
	:: else
	fi
}

inline answer(i, m) {	/* head to clients */
	acked = acked | ((m) & ~done & (COUNTS(i) -> ALLW : durm));
	if :: !COUNTS(i) -> com = com | acked :: else fi;
	done = done | (m)
}

inline adopt(i) {
	if :: st[i] == JOIN -> cp_ep = 0; cp_ver = 0; cp_mk = 0 :: else fi;
	ep[i] = m_epoch;
#ifdef SYNC
	reca[i] = m_reca;
#endif
	blank(i);
	purge(i);
	if
	:: INSET(i) ->
		assert(st[i] != BOOTED || m_recov);
		st[i] = (m_recov -> RECOV : ROLL);
		x = 0;
		do :: ord[x] != i -> x++ :: else -> break od;
		if :: x > 0 -> pv[i] = ord[x-1] :: else fi;
		if :: x + 1 < m_n -> nx[i] = ord[x+1] :: else -> jn[i] = m_join fi
	:: !INSET(i) && m_join == i ->
		st[i] = JOIN; pv[i] = ord[m_n-1]; dirty[i] = 0; pc = pc & ~BIT(i)
	:: else ->
		st[i] = OUT; dirty[i] = 0;
		m_wait = m_wait & ~BIT(i);	/* it confirmed, or its lease ended */
		settle()
	fi
}

inline apply(i, v, m) {
#ifdef BUG_ROLLBACK
	if :: !dirty[i] -> pver[i] = ver[i]; pmk[i] = mk[i] :: else fi;
#endif
	ver[i] = v; mk[i] = m
}

inline go(i) {	/* activated: rolls forward, then serves */
	st[i] = SERV;
	if
	:: nx[i] != NONE ->
#ifdef BUG_NO_ROLL_FORWARD
		dirty[i] = 0
#else
		if :: dirty[i] -> send_fw(i, ver[i], mk[i]) :: else fi
#endif
	:: else ->
#ifdef BUG_ROLLBACK
		if :: dirty[i] -> ver[i] = pver[i]; mk[i] = pmk[i] :: else fi;
#endif
		dirty[i] = 0; sync_durable(i); commit(i);
		if :: pv[i] == NONE && MAYANSWER(i) -> answer(i, mk[i]) :: else fi
	fi
}

inline head_apply(i, bit_) {
	q_ = (ver[i] / CTR == ep[i] -> ver[i] + 1 : ep[i] * CTR + 1);
	assert(q_ % CTR != 0);
	assert((com & (bit_)) == 0);	/* (e): a committed write is not applied again */
	apply(i, q_, mk[i] | (bit_));
	if
	:: TO(i) == NONE -> sync_durable(i); commit(i); answer(i, mk[i])
	:: else ->
#ifdef BUG_ACK_BEFORE_TAIL
		answer(i, mk[i]); commit(i);
#endif
		dirty[i] = 1; send_fw(i, ver[i], mk[i])
	fi
}

inline recv(i) {
	fw[i]?e_,v_,m_;
	if
#ifdef BUG_FENCE_REFUSES_HOPS
	:: fk[i] && (m_ & ~mk[i] & FB) -> skip
	:: !(fk[i] && (m_ & ~mk[i] & FB)) && v_ > ver[i] ->
#else
	:: v_ > ver[i] ->
#endif
		assert((mk[i] & ~m_) == 0);	/* a hop applies to what its sender applied it to */
		apply(i, v_, m_);
		if
		:: TO(i) == NONE ->
			sync_durable(i);
			if :: st[i] == SERV -> dirty[i] = 0; commit(i) :: else fi;
			send_ak(i, v_, m_)
		:: else ->
			dirty[i] = 1; send_fw(i, v_, m_)
		fi
	:: else ->
		assert(v_ != ver[i] || m_ == mk[i]);
		if :: !dirty[i] -> sync_durable(i); send_ak(i, v_, m_) :: else fi
	fi
}

inline recv_ak(i) {
	ak[i]?e_,v_,m_;
	sync_durable(i);
	if :: v_ == ver[i] -> dirty[i] = 0 :: else fi;
	if :: nx[i] == NONE && COUNTS(i) -> com = com | m_ :: else fi;
	if
	:: pv[i] == NONE -> answer(i, m_)
	:: else -> send_ak(i, v_, m_)
	fi
}

inline crash(i) {
	faults--;
	drain(i);
	st[i] = DOWN; ep[i] = 0; blank(i); dirty[i] = 0;
#ifdef SYNC
	reca[i] = 0;
#endif
#ifdef FENCE
	fk[i] = 0;
#endif
	m_wait = m_wait & ~BIT(i);
	settle()
}

/* ---- guards with a joiner ---- */
#define COPYING(t, j)	(st[t] == SERV && jn[t] == j && !jh[t] && st[j] == JOIN && ep[j] == ep[t] && cp_ep == 0)
#define HIGHER(t, j)	(COPYING(t, j) && ver[j] > ver[t])
#ifdef BUG_NO_REVERSION
#define MAYCOPY(t, j)	COPYING(t, j)
#else
#define MAYCOPY(t, j)	(COPYING(t, j) && ver[j] <= ver[t])
#endif
#define NEEDS(h, t, j)	(HIGHER(t, j) && ep[h] == ep[t] && ver[h] < ver[j])
#if N == 2
#define NEEDS_T(h, t)	(NEEDS(h, t, 0) || NEEDS(h, t, 1))
#define NEEDSANY(h)	(NEEDS_T(h, 0) || NEEDS_T(h, 1))
#else
#define NEEDS_T(h, t)	(NEEDS(h, t, 0) || NEEDS(h, t, 1) || NEEDS(h, t, 2))
#define NEEDSANY(h)	(NEEDS_T(h, 0) || NEEDS_T(h, 1) || NEEDS_T(h, 2))
#endif

#ifdef FENCE
#define MAYSEND(c)	((c) == 0 || granted)
#define ADMITS(i, c)	((c) != 0 || !fk[i])
#define FORGET(i)	fk[i] = m_fence
#else
#define MAYSEND(c)	true
#define ADMITS(i, c)	true
#define FORGET(i)	skip
#endif
#ifdef BUG_FENCE_FORGET
#undef FORGET
#define FORGET(i)	skip
#endif

/* ---- steps of member i ---- */
#define MEMBER(i) \
	:: d_step { st[i] != DOWN && ep[i] < m_epoch -> adopt(i) } \
	:: d_step { st[i] == ROLL && ACTIVATED(i) && ROOM(i) -> go(i) } \
	:: d_step { fw[i]?[eval(ep[i]),_,_] && (st[i] == SERV || (st[i] == JOIN && has[i])) && ROOM(i) && ROOMA(i) -> recv(i) } \
	:: d_step { ak[i]?[eval(ep[i]),_,_] && st[i] == SERV && ROOMA(i) && MAYANSWER(i) -> recv_ak(i) } \
	:: d_step { st[i] == JOIN && cp_ep == ep[i] && MAYINSTALL(i) -> \
		assert(has[i] == 0 || cp_ver >= ver[i]); /* (f) */ \
		if :: cp_ver > ver[i] || has[i] -> ver[i] = cp_ver; mk[i] = cp_mk :: else fi; \
		has[i] = 1; EARLY(i) } \
	:: d_step { st[i] == JOIN && has[i] && cmpl == 0 && m_epoch == ep[i] -> JOINSYNC(i); cmpl = ep[i] } \
	:: d_step { st[i] == SERV && HEAD(i) && NEEDSANY(i) && ROOM(i) -> head_apply(i, 0) } \
	/* metadata server about i */ \
	:: d_step { !m_recov && P_DEAD(i) && LEAVES(i) -> \
		t_ = OVER(P_NEWBOOT) | BIT(i); cut(t_); new_epoch(); losscheck() } \
	:: d_step { m_join == i && (st[i] == DOWN || NEWBOOT(i)) && OVER(P_NEWBOOT) == 0 -> m_join = NONE; new_epoch() } \
	:: d_step { m_join == NONE && !INSET(i) && !m_recov && m_act == m_epoch && OVER(P_DEAD) == 0 && (st[i] == OUT || st[i] == BOOTED) -> \
		m_join = i; new_epoch() } \
	:: d_step { m_join == i && cmpl != 0 && CMPLOK && !INSET(i) && SAMEBOOT(i) && OVER(P_NEWBOOT) == 0 && !m_recov -> \
		m_set = m_set | BIT(i); ord[m_n] = i; m_n++; m_join = NONE; cmpl = 0; new_epoch(); losscheck() } \
	/* restart, faults */ \
	:: d_step { st[i] == DOWN -> st[i] = BOOTED; ep[i] = m_epoch; FORGET(i) } \
	:: d_step { faults > 0 && st[i] != DOWN -> crash(i); losscheck() } \
	POWERCUT(i) SUSPICION(i) FENCESTEPS(i) SYNCSTEP(i) TAKEOVER(i)

#ifdef BUG_SHRINK_TO_EMPTY
#define LEAVES(i) true
#else
#define LEAVES(i) (m_set & ~(OVER(P_NEWBOOT) | BIT(i)))
#endif
#ifdef BUG_OLDER_TAKES_OVER
#define TAKEOVER(i) \
	:: d_step { OVER(P_DOWN) == m_set && !INSET(i) && (st[i] == OUT || st[i] == BOOTED) && m_join == NONE -> \
		m_set = BIT(i); cut(0); ord[0] = i; m_n = 1; m_recov = 1; ep[i] = m_epoch; new_epoch() }
#else
#define TAKEOVER(i)
#endif
#ifdef BUG_PROMOTE_REBOOTED
#define SAMEBOOT(i) true
#else
#define SAMEBOOT(i) (!NEWBOOT(i))
#endif
#ifdef BUG_PROMOTE_STALE
#define CMPLOK true
#else
#define CMPLOK (cmpl == m_epoch)
#endif
#ifdef BUG_INSTALL_OVER_HIGHER
#define MAYINSTALL(i) (!has[i] || cp_ver < ver[i])
#else
#define MAYINSTALL(i) (!has[i])
#endif
#ifdef BUG_JOIN_UNSYNCED
#define JOINSYNC(i) skip
#else
#define JOINSYNC(i) sync(i)
#endif
#ifdef BUG_JOINER_SERVES_EARLY
#define EARLY(i) st[i] = SERV
#else
#define EARLY(i) skip
#endif
#ifdef POWER
#define POWERCUT(i) \
	:: d_step { faults > 0 && st[i] != DOWN && ver[i] != sver[i] -> crash(i); ver[i] = sver[i]; mk[i] = smk[i]; pc = pc | BIT(i); losscheck() }
#else
#define POWERCUT(i)
#endif
#ifdef SUSPECT
#define SUSPICION(i) \
	:: d_step { faults > 0 && !m_recov && INSET(i) && (LIVE(i)) && (m_set & ~(OVER(P_NEWBOOT) | BIT(i))) -> \
		faults--; t_ = OVER(P_NEWBOOT) | BIT(i); m_wait = m_wait | BIT(i); cut(t_); new_epoch(); losscheck() }
#else
#define SUSPICION(i)
#endif
#ifdef FENCE
#ifdef BUG_CONFIRM_DIRTY
#define DRAINED(i) true
#else
#define DRAINED(i) (!dirty[i])
#endif
#define FENCESTEPS(i) \
	:: d_step { m_fence && !fk[i] && st[i] != DOWN -> fk[i] = 1 } \
	:: d_step { m_fence && !granted && fk[i] && INSET(i) && ep[i] == m_epoch && st[i] == SERV && DRAINED(i) && !((m_fconf >> i) & 1) -> \
		m_fconf = m_fconf | BIT(i) }
#else
#define FENCESTEPS(i)
#endif
#ifdef SYNC
#ifdef BUG_SYNC_MIN_REPLICAS
#define SYNCED (sy & (sy - 1))	/* two members */
#else
#define SYNCED ((sy & m_set) == m_set)
#endif
#ifdef BUG_SYNC_WITHOUT_JOINER
#define AFTER(i) (nx[i])
#else
#define AFTER(i) (TO(i))	/* sync travels the chain: who is behind answers first */
#endif
#ifdef BUG_SYNC_AT_OR_ABOVE
#define LOSTV(i) false
#else
#define LOSTV(i) (reca[i] > v0 / CTR && ver[i] != v0)
#endif
#define SYNCSTEP(i) \
	:: d_step { (done & 1) && !sylost && !(durm & 1) && (st[i] == SERV || (st[i] == JOIN && has[i])) && ep[i] == m_epoch && !((sy >> i) & 1) && (AFTER(i) == NONE || ((sy >> AFTER(i)) & 1)) && (LOSTV(i) || ver[i] >= v0) -> \
		if \
		:: LOSTV(i) -> sylost = 1; sy = 0 \
		:: else -> sync(i); assert(mk[i] & 1); /* (a): "synced" is said only of bytes that are there */ \
			sy = sy | BIT(i); if :: SYNCED -> durm = durm | 1 :: else fi \
		fi }
#else
#define SYNCSTEP(i)
#endif

/* tail t copies to joiner j */
#define COPY(t, j) \
	:: d_step { MAYCOPY(t, j) -> cp_ep = ep[t]; cp_ver = ver[t]; cp_mk = mk[t]; jh[t] = 1 } \
	DROPJOINER(t, j)
#ifdef BUG_DROP_JOINER
#define DROPJOINER(t, j) \
	:: d_step { st[t] == SERV && jn[t] == j && jh[t] && st[j] != JOIN -> jh[t] = 0; jn[t] = NONE; dirty[t] = 0; commit(t); \
		if :: pv[t] == NONE -> answer(t, mk[t]) :: else -> skip fi } \
	:: d_step { st[t] == SERV && jn[t] == j && jh[t] && st[j] == JOIN && cmpl != 0 -> jh[t] = 0; jn[t] = NONE }
#else
#define DROPJOINER(t, j)
#endif

/* all of the set restarted: those who are back compare */
#define RECON(i, j) \
	:: d_step { m_recov && OVER(P_REC) == m_set && INSET(i) && INSET(j) && ver[i] < ver[j] -> ver[i] = ver[j]; mk[i] = mk[j] }

#ifdef BUG_NO_RECORD
#define UNKNOWN(i, w) true
#else
#define UNKNOWN(i, w) (!(mk[i] & BIT(w)))	/* the record of the last (session, sequence) */
#endif

/* client c, its write w, at member i */
#define WRITE(i, c, w) \
	:: d_step { st[i] == SERV && HEAD(i) && MAYSEND(c) && ADMITS(i, c) && !(done & BIT(w)) && ((w) % K == 0 || (done & BIT(((w) + 7) % 8))) && \
		UNKNOWN(i, w) && ROOM(i) && MAYANSWER(i) -> head_apply(i, BIT(w)); FIRSTV(i, w) } \
	:: d_step { st[i] == SERV && HEAD(i) && ADMITS(i, c) && !(done & BIT(w)) && (mk[i] & BIT(w)) && !dirty[i] && MAYANSWER(i) -> answer(i, BIT(w)) }
#ifdef SYNC
#define FIRSTV(i, w) if :: (w) == 0 -> v0 = ver[i] :: else -> skip fi
#else
#define FIRSTV(i, w) skip
#endif

#if K == 1
#define CLIENT(i, c) WRITE(i, c, c)
#else
#define CLIENT(i, c) WRITE(i, c, 2*(c)) WRITE(i, c, 2*(c)+1)
#endif
#if C == 1
#define CLIENTS(i) CLIENT(i, 0)
#else
#define CLIENTS(i) CLIENT(i, 0) CLIENT(i, 1)
#endif

#ifdef FENCE
#define MUST (ALLW & ~FB)
#define P_FENCED(i) (((m_fconf >> (i)) & 1) || (!INSET(i) && (st[i] == DOWN || fk[i])))
#if defined(BUG_NO_FENCE_CONFIRM)
#define GRANTABLE true
#elif defined(BUG_CONFIRM_OLD_EPOCH)
#define P_FENCED0(i) (((m_fconf >> (i)) & 1) || st[i] == DOWN || (!INSET(i) && fk[i]))
#define GRANTABLE (OVER(P_FENCED0) == ALLM)
#else
#define P_REST(i) (st[i] == DOWN || fk[i])	/* nobody serves the group: who comes back learns of the end before it serves */
#define GRANTABLE ((m_act == m_epoch && OVER(P_FENCED) == ALLM) || (m_wait == 0 && OVER(P_DEAD) == m_set && OVER(P_REST) == ALLM))
#endif
#else
#define MUST ALLW
#endif

init {
	d_step {
		x = 0;
		do
		:: x < N ->
			ord[x] = x; st[x] = SERV; ep[x] = 1; blank(x); ver[x] = CTR; sver[x] = CTR;
			if :: x > 0 -> pv[x] = x - 1 :: else fi;
			if :: x + 1 < N -> nx[x] = x + 1 :: else fi;
			x++
		:: else -> break
		od;
		x = 0
	}
	do :: atomic {
	if
	MEMBER(0) MEMBER(1)
	COPY(0, 1) COPY(1, 0) RECON(0, 1) RECON(1, 0)
	CLIENTS(0) CLIENTS(1)
#if N == 3
	MEMBER(2)
	COPY(0, 2) COPY(1, 2) COPY(2, 0) COPY(2, 1) RECON(0, 2) RECON(1, 2) RECON(2, 0) RECON(2, 1)
	CLIENTS(2)
#endif
	:: d_step { !m_recov && OVER(P_DEAD) == m_set && OVER(P_NEWBOOT) -> t_ = m_set & ~OVER(P_NEWBOOT); cut(t_); m_recov = 1; new_epoch() }
	:: d_step { m_recov && OVER(P_DEAD) && (m_set & ~OVER(P_DOWN)) -> t_ = OVER(P_DOWN); cut(t_); new_epoch() }
	:: d_step { m_recov && OVER(P_REC) == m_set && m_set &&
#if N == 2
		(m_set != 3 || ver[0] == ver[1])
#else
		(!(INSET(0) && INSET(1)) || ver[0] == ver[1]) && (!(INSET(1) && INSET(2)) || ver[1] == ver[2]) && (!(INSET(0) && INSET(2)) || ver[0] == ver[2])
#endif
		-> q_ = 0;
		do
		:: q_ < N ->
			if
			:: INSET(q_) ->
#ifndef BUG_RECONCILE_NO_SYNC
				sync(q_);
#endif
				com = com | mk[q_]
			:: else
			fi;
			q_++
		:: else -> break
		od;
		pc = pc & ~m_set; m_recov = 0;
#ifdef SYNC
		m_reca = m_epoch;
#endif
		new_epoch() }
#ifdef FENCE
	:: d_step { !m_fence && done != ALLW -> m_fence = 1 }
	:: d_step { m_fence && !granted && GRANTABLE -> granted = 1 }
#endif
	/* progress: when nothing is left to do, all writes were answered and the group is whole */
	:: else -> assert(faults != 0 || ((MUST & ~done) == 0 && m_set == ALLM)); break
	fi;
	d_step { inv() } }
	od
}
