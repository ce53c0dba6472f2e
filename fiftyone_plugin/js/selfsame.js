/**
 * What the views of all panels are made of, and the views of the Duplicates and the Objects panel; those of other panels
 * are in files beside this one, which are loaded when such a panel opens. Their Python side is `fiftyone_plugin/panels`.
 *
 * Plain JavaScript that runs as it is, without a build: the App offers React and its own packages as globals. All text
 * from data goes through React, which escapes it.
 *
 * @typedef {{id: string, sample_id: string, filepath: string, box: number[]|null, role: string|null,
 *   similarity: number|null, shot: number|null, quality: number|null, decision: string|null, tags: string[],
 *   label: string|null}} Member
 * @typedef {{group: number, size: number, similarity: number|null, risk: number|null, kind: string|null,
 *   decided: boolean, members: Member[]}} Group
 * @typedef {{groups: Group[], total: number, page: number, pages: number, kinds: Object<string, number>}} Page
 * @typedef {(name: string, params?: object) => Promise<any>} Call
 */
(function () {
  "use strict";

  const React = window.React;
  const { useCallback, useEffect, useMemo, useRef, useState } = React;
  const h = React.createElement;

  // Files beside this one are found by its address, which is known only now, while it is first run.
  const ADDRESS = (document.currentScript || {}).src;

  const KINDS = { exact: "Exact", near: "Near", same_object: "Same object", similar: "Similar" };
  const KIND_HELP = {
    exact: "The pictures are the same, pixel by pixel",
    near: "The same shot: re-encoded, resized, cropped, recoloured ...",
    same_object: "Other shots of the same object",
    similar: "Not the same pictures",
  };

  // ---------------------------------------------------------------------------------------------- talking to Python

  /**
   * Events of the panel as promises of their answers. Answers with an `error` reject.
   * @param {Object<string, string>} view the schema's view: address of each event by name
   * @returns {Call}
   */
  function useCall(view) {
    const trigger = window.__foo__.useTriggerPanelEvent();
    const last = useRef({ trigger, view });
    last.current = { trigger, view };
    return useCallback(
      (name, params) =>
        new Promise((resolve, reject) => {
          last.current.trigger(last.current.view[name], params || {}, false, (outcome) => {
            const error = outcome.error ? outcome.errorMessage || outcome.error : (outcome.result || {}).error;
            if (error) reject(new Error(String(error)));
            else resolve(outcome.result || {});
            return false; // the App would otherwise put its error page in place of the panel
          });
        }),
      []
    );
  }

  /** Runs calls one at a time and forgets all but the latest that wait: for what is asked while something is dragged. */
  function useLatest(run) {
    const state = useRef({ busy: false, waiting: null });
    return useCallback(
      async (value) => {
        const queue = state.current;
        queue.waiting = { value };
        if (queue.busy) return;
        queue.busy = true;
        while (queue.waiting) {
          const next = queue.waiting.value;
          queue.waiting = null;
          await run(next);
        }
        queue.busy = false;
      },
      [run]
    );
  }

  /** What of a panel outlives a reload of the page: kept in the panel's state. */
  function useSaved(defaults) {
    const [saved, save] = window.__fosp__.usePanelStatePartial("state", {});
    const all = { ...defaults, ...(saved || {}) };
    const change = (changes) => save((before) => ({ ...(before || {}), ...changes }));
    return [all, change];
  }

  /** Work that is asked of the server: whether any is going on, and what went wrong; the panel keeps the keyboard. */
  function useGuard() {
    const root = useRef(null);
    const [error, setError] = useState(null);
    const [busy, setBusy] = useState(false);
    const guarded = async (work) => {
      setBusy(true);
      setError(null);
      try {
        return await work();
      } catch (problem) {
        setError(problem.message);
        return null;
      } finally {
        setBusy(false);
        const focused = document.activeElement;
        if (root.current && (!focused || focused === document.body)) root.current.focus({ preventScroll: true });
      }
    };
    return { root, error, setError, busy, guarded };
  }

  const source = (path) =>
    window.__fos__ && window.__fos__.getSampleSrc
      ? window.__fos__.getSampleSrc(path)
      : `/media?filepath=${encodeURIComponent(path)}`;

  const count = (n) => Number(n || 0).toLocaleString("en");
  const plural = (n, word, many) => `${count(n)} ${n === 1 ? word : many || `${word}s`}`;
  const fixed = (value, digits) => (value === null || value === undefined ? "–" : Number(value).toFixed(digits));
  const fileName = (path) => String(path).split(/[\\/]/).pop();

  // ------------------------------------------------------------------------------------------------- small elements

  const Icon = ({ name }) => h("span", { className: "material-icons sfs-icon", "aria-hidden": true }, name);

  /** A button; `hotkey` is shown beside its label. Never `disabled`, which would take the keyboard away from the panel. */
  function Button({ cy, label, icon, hotkey, title, off, strong, danger, onClick }) {
    const names = ["sfs-button", strong && "sfs-strong", danger && "sfs-danger", off && "sfs-off"];
    return h(
      "button",
      {
        type: "button",
        className: names.filter(Boolean).join(" "),
        "data-cy": cy,
        "aria-disabled": Boolean(off),
        title,
        onClick: (event) => {
          event.stopPropagation();
          if (!off) onClick();
        },
      },
      icon && h(Icon, { name: icon }),
      label && h("span", null, label),
      hotkey && h("kbd", null, hotkey)
    );
  }

  function Choice({ cy, label, value, options, onChange }) {
    const items = options.map(([name, text]) => h("option", { key: name, value: name }, text));
    const select = { "data-cy": cy, value, "aria-label": label, onChange: (event) => onChange(event.target.value) };
    return h("label", { className: "sfs-choice" }, h("span", null, label), h("select", select, items));
  }

  function Tick({ cy, label, title, value, onChange }) {
    const box = { type: "checkbox", "data-cy": cy, checked: Boolean(value), onChange: (e) => onChange(e.target.checked) };
    return h("label", { className: "sfs-tick", title }, h("input", box), h("span", null, label));
  }

  const sizes = new Map();

  /** Width and height of a picture once it has been loaded. */
  function useNaturalSize(src, wanted) {
    const [size, setSize] = useState(sizes.get(src));
    useEffect(() => {
      if (!wanted || sizes.has(src)) return setSize(sizes.get(src));
      const image = new Image();
      image.onload = () => {
        sizes.set(src, [image.naturalWidth, image.naturalHeight]);
        setSize(sizes.get(src));
      };
      image.src = src;
      return () => (image.onload = null);
    }, [src, wanted]);
    return size;
  }

  /** The picture of a member; of an object its box, outlined, with a little of what is around it. */
  function Thumb({ member, cover }) {
    const src = source(member.filepath);
    const size = useNaturalSize(src, Boolean(member.box));
    const [broken, setBroken] = useState(false);
    useEffect(() => setBroken(false), [src]);
    if (broken) return h("div", { className: "sfs-broken" }, h(Icon, { name: "broken_image" }));
    if (!member.box) {
      const style = { objectFit: cover ? "cover" : "contain" };
      return h("img", { src, style, alt: "", loading: "lazy", decoding: "async", draggable: false, onError: () => setBroken(true) });
    }
    if (!size) return h("div", { className: "sfs-broken" });
    const [x, y, w, b] = [0, 1, 2, 3].map((i) => member.box[i] * size[i % 2]);
    const margin = 0.08 * Math.max(w, b);
    const frame = [x - margin, y - margin, w + 2 * margin, b + 2 * margin].join(" ");
    return h(
      "svg",
      { viewBox: frame, preserveAspectRatio: `xMidYMid ${cover ? "slice" : "meet"}` },
      h("image", { href: src, width: size[0], height: size[1] }),
      !cover && h("rect", { x, y, width: w, height: b, className: "sfs-box" })
    );
  }

  function Kind({ kind }) {
    if (!kind) return null;
    return h("span", { className: `sfs-kind sfs-kind-${kind}`, title: KIND_HELP[kind] }, KINDS[kind] || kind);
  }

  function Progress({ progress }) {
    const { groups, decided, keep, drop, reject } = progress;
    const share = groups ? Math.min(100, (100 * decided) / groups) : 0;
    const text = `${count(decided)} of ${count(groups)} decided`;
    const detail = `${count(keep)} kept, ${count(drop)} dropped, ${count(reject)} rejected`;
    return h(
      "div",
      { className: "sfs-progress", "data-cy": "selfsame-progress", title: `${text}: ${detail}` },
      h("div", { className: "sfs-bar" }, h("div", { style: { width: `${share}%` } })),
      h("span", null, text)
    );
  }

  function Empty({ start, onStart }) {
    return h(
      "div",
      { className: "sfs-empty", "data-cy": "selfsame-empty" },
      h(Icon, { name: "content_copy" }),
      h("p", null, start.reason),
      h(Button, { cy: "selfsame-start", label: start.label, icon: "play_arrow", strong: true, onClick: onStart })
    );
  }

  // ----------------------------------------------------------------------------------------- histogram and threshold

  /** Nearest-neighbour similarities as bars, and over them the threshold as a line that can be dragged. */
  function Histogram({ histogram, lowest, present, value, onChange }) {
    const svg = useRef(null);
    const { edges, counts } = histogram;
    // Below the least of these all images are linked, yet groups go on growing: some room for that, as far as pairs go.
    const high = Math.max(edges[edges.length - 1], present);
    const start = Math.min(edges[0], present);
    const kept = lowest === null || lowest === undefined ? start : lowest;
    const low = Math.min(start, Math.max(kept, start - 0.25 * (high - start)));
    const least = Math.max(low, kept);
    const top = Math.max(...counts.map(Math.sqrt), 1);
    const at = (x) => (100 * (x - low)) / (high - low || 1);
    const clamp = (x) => Math.min(Math.max(x, least), high);
    const move = (event) => {
      const area = svg.current.getBoundingClientRect();
      onChange(clamp(low + ((high - low) * (event.clientX - area.left)) / area.width));
    };
    const press = (event) => {
      event.currentTarget.setPointerCapture(event.pointerId);
      move(event);
    };
    const step = (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10 }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      onChange(clamp(value + (by * (high - low)) / 500));
    };
    const bars = counts.map((n, i) => {
      const height = n ? Math.max(1.5, (100 * Math.sqrt(n)) / top) : 0;
      const [x, width] = [at(edges[i]), at(edges[i + 1]) - at(edges[i])];
      const linked = (edges[i] + edges[i + 1]) / 2 >= value;
      const title = `${edges[i].toFixed(3)} to ${edges[i + 1].toFixed(3)}: ${count(n)}`;
      const shape = { x: x + 0.1 * width, y: 100 - height, width: 0.8 * width, height };
      return h("rect", { key: i, ...shape, className: linked ? "sfs-linked" : "sfs-unlinked" }, h("title", null, title));
    });
    const line = {
      className: "sfs-threshold",
      "data-cy": "selfsame-threshold",
      role: "slider",
      tabIndex: 0,
      "aria-label": "Threshold",
      "aria-valuemin": least,
      "aria-valuemax": high,
      "aria-valuenow": value,
      style: { left: `${at(clamp(value))}%` },
      onKeyDown: step,
    };
    return h(
      "div",
      { className: "sfs-histogram", "data-cy": "selfsame-histogram" },
      h(
        "div",
        {
          className: "sfs-plot",
          onPointerDown: press,
          onPointerMove: (event) => event.currentTarget.hasPointerCapture(event.pointerId) && move(event),
        },
        h(
          "svg",
          { ref: svg, viewBox: "0 0 100 100", preserveAspectRatio: "none" },
          bars,
          least > low && h("rect", { x: 0, y: 0, width: at(least), height: 100, className: "sfs-unkept" })
        ),
        h("div", line, h("span", null))
      ),
      h(
        "div",
        { className: "sfs-axis" },
        h("span", { "data-cy": "selfsame-axis-low" }, low.toFixed(3)),
        h("span", null, "similarity to the nearest"),
        h("span", { "data-cy": "selfsame-axis-high" }, high.toFixed(3))
      )
    );
  }

  /** Histogram, the groups that its threshold would give, and the way to have them. */
  function Threshold({ run, groups, call, folded, onFold, onRegroup }) {
    const [value, setValue] = useState(run.threshold);
    const [preview, setPreview] = useState(null);
    useEffect(() => {
      setValue(run.threshold);
      setPreview(null);
    }, [run.key, run.threshold]);
    const ask = useCallback(
      (threshold) =>
        call("preview", { key: run.key, threshold }).then(
          (counts) => setPreview({ ...counts, asked: threshold }),
          (error) => setPreview({ error: error.message, asked: threshold })
        ),
      [call, run.key]
    );
    const askLatest = useLatest(ask);
    const change = (threshold) => {
      const rounded = Math.round(threshold * 1e4) / 1e4;
      setValue(rounded);
      askLatest(rounded);
    };
    if (run.threshold === null || run.threshold === undefined) return null;
    const moved = Math.abs(value - run.threshold) > 5e-5;
    const counts = moved && preview && !preview.error ? preview : { ...run.counts, groups };
    const text = `${plural(counts.groups, "group")}, ${plural(counts.duplicates, "duplicate")}, largest ${count(counts.largest)}`;
    return h(
      "section",
      { className: "sfs-card" },
      h(
        "div",
        { className: "sfs-row" },
        h("b", { "data-cy": "selfsame-threshold-value" }, fixed(value, 4)),
        h("span", { className: "sfs-grow sfs-dim", title: run.reason || "" }, moved ? `now ${fixed(run.threshold, 4)}` : run.reason),
        moved && h(Button, { cy: "selfsame-threshold-reset", label: "Reset", onClick: () => setValue(run.threshold) }),
        moved && h(Button, { cy: "selfsame-regroup", label: "Regroup", strong: true, onClick: () => onRegroup(value) }),
        h(Button, { cy: "selfsame-fold", icon: folded ? "expand_more" : "expand_less", title: folded ? "Show the histogram" : "Hide the histogram", onClick: onFold })
      ),
      run.histogram && !folded && h(Histogram, { histogram: run.histogram, lowest: run.lowest, present: run.threshold, value, onChange: change }),
      h(
        "div",
        { className: "sfs-counts", "data-cy": "selfsame-counts", "data-threshold": moved && preview ? preview.asked : value },
        moved && preview && preview.error ? preview.error : text + (counts.approximate ? " (about)" : "")
      )
    );
  }

  // ------------------------------------------------------------------------------------------------ list and members

  function GroupRow({ group, open, place, marked, onOpen, onMark }) {
    const names = ["sfs-entry", open && "sfs-open", group.decided && "sfs-decided"].filter(Boolean).join(" ");
    const title = group.name || `#${group.group}`;
    const row = useRef(null);
    useEffect(() => {
      if (open && row.current) row.current.scrollIntoView({ block: "nearest", inline: "nearest" });
    }, [open, place]);
    return h(
      "div",
      { ref: row, className: names, "data-cy": `selfsame-group-${group.group}`, role: "button", onClick: onOpen },
      h("div", { className: "sfs-strip" }, group.members.slice(0, 4).map((m) => h("div", { key: m.id }, h(Thumb, { member: m, cover: true })))),
      h(
        "div",
        { className: "sfs-facts" },
        onMark && h("input", { type: "checkbox", checked: marked, "data-cy": `selfsame-mark-${group.group}`, title: "Select to merge", onClick: (e) => e.stopPropagation(), onChange: onMark }),
        h("b", { className: "sfs-name" }, title),
        h("span", { className: "sfs-size" }, `× ${count(group.size)}`),
        !onMark && h(Kind, { kind: group.kind }),
        h("span", { className: "sfs-grow" }),
        group.risk !== null && h("span", { className: "sfs-risk", title: `Risk ${fixed(group.risk, 2)}: how doubtful the group is` }, h("i", { style: { width: `${100 * group.risk}%` } })),
        group.decided && h(Icon, { name: "check_circle" })
      )
    );
  }

  function Pager({ page, word, onPage }) {
    return h(
      "div",
      { className: "sfs-row sfs-pager" },
      h(Button, { cy: "selfsame-page-back", icon: "chevron_left", off: !page.page, onClick: () => onPage(page.page - 1) }),
      h("span", { "data-cy": "selfsame-page" }, `${count(page.page + 1)} / ${count(page.pages)}`),
      h(Button, { cy: "selfsame-page-next", icon: "chevron_right", off: page.page + 1 >= page.pages, onClick: () => onPage(page.page + 1) }),
      h("span", { className: "sfs-dim" }, plural(page.total, word))
    );
  }

  function GroupList({ page, word, open, marked, onOpen, onMark, onPage }) {
    const rows = page.groups.map((group, place) =>
      h(GroupRow, {
        key: group.group,
        group,
        open: group.group === open,
        place,
        marked: marked && marked.includes(group.group),
        onOpen: () => onOpen(group.group),
        onMark: onMark && (() => onMark(group.group)),
      })
    );
    return h(
      React.Fragment,
      null,
      h("div", { className: "sfs-list", "data-cy": "selfsame-list" }, rows.length ? rows : h("p", { className: "sfs-dim" }, `No such ${word}.`)),
      h(Pager, { page, word, onPage })
    );
  }

  const DECISIONS = { keep: "keep", drop: "drop", reject: "not the same", confirm: "confirmed" };

  function Tile({ member, number, chosen, shots, onToggle, onOpen }) {
    const decision = member.decision;
    const names = ["sfs-tile", chosen && "sfs-chosen", decision && `sfs-is-${decision}`].filter(Boolean).join(" ");
    const keeper = member.role === "keeper";
    return h(
      "div",
      { className: names, "data-cy": `selfsame-member-${number}`, "data-id": member.id, title: member.filepath, onClick: onToggle, onDoubleClick: onOpen },
      h(
        "div",
        { className: "sfs-picture" },
        h(Thumb, { member }),
        number < 9 && h("kbd", null, number + 1),
        keeper && h("span", { className: "sfs-keeper", title: "The best of the group" }, h(Icon, { name: "star" }), "best"),
        decision && h("span", { className: "sfs-decision" }, DECISIONS[decision] || decision),
        chosen && h("span", { className: "sfs-check" }, h(Icon, { name: "check" }))
      ),
      h(
        "div",
        { className: "sfs-caption" },
        h("span", { className: "sfs-name" }, member.label ? `${member.label} · ${fileName(member.filepath)}` : fileName(member.filepath)),
        h(
          "span",
          { className: "sfs-dim" },
          member.similarity !== null && h("span", { title: "Similarity to the best" }, fixed(member.similarity, 3)),
          member.quality !== null && h("span", { title: "Quality score" }, `q ${fixed(member.quality, 2)}`),
          shots > 1 && member.shot !== null && h("span", { title: "Members of one shot are the same picture, edited" }, `shot ${member.shot + 1}`)
        )
      )
    );
  }

  function Stage({ group, members, chosen, actions, words, undo, onToggle, onShow, children }) {
    const shots = new Set(members.map((m) => m.shot).filter((shot) => shot !== null && shot !== undefined)).size;
    const wide = members.length <= 2 ? 300 : members.length <= 6 ? 210 : 150;
    const facts = group
      ? [plural(group.size, "member"), shots > 1 && plural(shots, "shot"), group.similarity !== null && `${words.similarity} ${fixed(group.similarity, 3)}`, group.risk !== null && `${words.risk} ${fixed(group.risk, 2)}`]
      : [plural(members.length, "member")];
    return h(
      "main",
      { className: "sfs-stage", "data-cy": "selfsame-stage" },
      h("div", { className: "sfs-row sfs-wrap sfs-head" }, children, h("span", { className: "sfs-dim sfs-grow" }, facts.filter(Boolean).join(" · ")), undo),
      h("div", { className: "sfs-row sfs-wrap sfs-actions" }, actions),
      h(
        "div",
        { className: "sfs-tiles", style: { "--sfs-tile": `${wide}px` } },
        members.map((member, number) =>
          h(Tile, {
            key: member.id,
            member,
            number,
            shots,
            chosen: chosen.includes(member.id),
            onToggle: () => onToggle(member.id),
            onOpen: () => onShow(member.sample_id),
          })
        )
      ),
      group && group.size > members.length && h("p", { className: "sfs-dim" }, `The first ${count(members.length)} of ${count(group.size)} are shown; decisions on the group count for all.`)
    );
  }

  function Undo({ review }) {
    const n = review.data.progress.undoable;
    return h(Button, { cy: "selfsame-undo", hotkey: "U", label: "Undo", icon: "undo", off: !n, title: `${plural(n, "decision")} can be undone`, onClick: review.undo });
  }

  function Keys({ keys }) {
    return h(
      "div",
      { className: "sfs-keys", "data-cy": "selfsame-keys" },
      keys.map(([key, text]) => h("span", { key }, h("kbd", null, key), text)),
      h("span", { className: "sfs-sleeping" }, "click into the panel to use the keys")
    );
  }

  // ------------------------------------------------------------------------------------------- what both panels share

  /**
   * State and actions of a review: run, list, open group, decisions.
   * @param {{view: object, defaults: object}} options
   */
  function useReview({ view, defaults }) {
    const call = useCall(view);
    const { root, error, setError, busy, guarded } = useGuard();
    const [saved, save] = useSaved({ key: null, follow: true, advance: true, kind: "", undecided: false, page: 0, ...defaults });
    const [data, setData] = useState(null); // the answer of `overview`
    const [opened, setOpened] = useState(null); // {group, members}
    const [chosen, setChosen] = useState([]);
    const current = useRef({});
    current.current = { saved, data, opened };

    const listed = (changes) => {
      const { key, sort, kind, undecided, page } = { ...current.current.saved, ...changes };
      return { key, sort, kind, undecided, page };
    };
    const openGroup = (group) =>
      guarded(async () => {
        const { saved, data } = current.current;
        const answer = await call("open_group", { key: data.key, group, follow: saved.follow });
        setChosen([]);
        setOpened(answer);
        save({ group });
        return answer;
      });
    const load = (changes) =>
      guarded(async () => {
        if (changes) save(changes);
        const answer = await call("overview", { ...listed(changes), fresh: true });
        setData(answer);
        if (!answer.page) return setOpened(null);
        const wanted = { ...current.current.saved, ...(changes || {}) }.group;
        const known = answer.page.groups.map((group) => group.group);
        const group = wanted !== undefined && wanted !== null && answer.key === current.current.saved.key ? wanted : known[0];
        if (group === undefined) return setOpened(null);
        const first = await call("open_group", { key: answer.key, group, follow: false });
        if (!first.members.length && known.length && group !== known[0])
          Object.assign(first, await call("open_group", { key: answer.key, group: known[0], follow: false }));
        save({ key: answer.key, group: first.group });
        setChosen([]);
        setOpened(first);
      });
    const turn = (changes) =>
      guarded(async () => {
        save(changes);
        const answer = await call("list_groups", { ...listed(changes), key: current.current.data.key });
        setData((before) => ({ ...before, ...answer }));
        save({ page: answer.page.page });
        return answer.page;
      });

    /** The row of the list that has changed, in place: the list keeps its order while one walks through it. */
    const patch = (answer) => {
      setData((before) => {
        const page = { ...before.page };
        page.groups = page.groups.map((row) =>
          answer.opened && row.group === answer.opened.group
            ? { ...row, size: answer.opened.size === undefined ? row.size : answer.opened.size, decided: answer.opened.members.some((m) => m.decision) }
            : row
        );
        return { ...before, progress: answer.progress, page };
      });
    };
    const step = async (by, undecidedOnly) => {
      const { data, opened, saved } = current.current;
      const rows = data.page.groups;
      const here = rows.findIndex((row) => opened && row.group === opened.group);
      for (let i = here + by; i >= 0 && i < rows.length; i += by)
        if (!undecidedOnly || !rows[i].decided) return openGroup(rows[i].group);
      const filtered = saved.undecided && by > 0; // what has been decided leaves the list, and the next move up
      const target = filtered ? data.page.page : data.page.page + by;
      if (target < 0 || target >= data.page.pages) return null;
      const page = await turn({ page: target });
      const next = page && (by > 0 ? page.groups[0] : page.groups[page.groups.length - 1]);
      return next && (!opened || next.group !== opened.group) ? openGroup(next.group) : null;
    };
    const decide = async (action, extra, { relist = false, stay = false } = {}) => {
      const { data, opened, saved } = current.current;
      const params = { key: data.key, action, groups: [opened.group], follow: saved.follow, ...extra };
      const answer = await guarded(() => call("decide", params));
      if (!answer) return;
      setChosen([]);
      patch(answer);
      if (answer.opened) setOpened(answer.opened);
      if (relist) await turn({});
      if (!stay && saved.advance && !relist) {
        current.current = { ...current.current, data: { ...data, page: markDecided(data.page, opened.group) } };
        await step(1, true);
      }
    };
    const undo = async () => {
      const answer = await guarded(() => call("undo", { key: current.current.data.key }));
      if (!answer) return;
      patch(answer);
      await turn({});
      if (answer.groups.length) await openGroup(answer.groups[0]);
    };
    const toggle = (id) => setChosen((ids) => (ids.includes(id) ? ids.filter((other) => other !== id) : [...ids, id]));
    const prompt = (operator, form) => guarded(() => call("prompt", { operator, form }));
    const show = (params) => guarded(() => call("show", { key: (current.current.data || {}).key, ...params }));

    useEffect(() => {
      load();
      if (root.current) root.current.focus({ preventScroll: true });
    }, [saved.refreshed]);

    return { call, root, saved, save, data, opened, chosen, error, busy, setError, openGroup, load, turn, step, decide, undo, toggle, prompt, show, guarded, setChosen };
  }

  const markDecided = (page, group) => ({
    ...page,
    groups: page.groups.map((row) => (row.group === group ? { ...row, decided: true } : row)),
  });

  /** Keys of a panel: letters, digits for members where there are any, and up and down through the list. */
  function keyHandler(review, letters) {
    return (event) => {
      const { tagName, type } = event.target;
      const typing = tagName === "SELECT" || tagName === "TEXTAREA" || (tagName === "INPUT" && type !== "checkbox");
      if (typing || event.ctrlKey || event.metaKey || event.altKey || !review.data || !review.data.page) return;
      const steps = { ArrowDown: 1, ArrowRight: 1, j: 1, ArrowUp: -1, ArrowLeft: -1, p: -1 };
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      const members = (review.opened && review.opened.members) || [];
      let act = null;
      if (key in steps) act = () => review.step(steps[key], false);
      else if (/^[1-9]$/.test(key) && members[key - 1]) act = () => review.toggle(members[key - 1].id);
      else if (key === "Escape" && review.setChosen) act = () => review.setChosen([]);
      else if (key === "u") act = review.undo;
      else if (letters[key]) act = letters[key];
      if (!act) return;
      event.preventDefault();
      event.stopPropagation();
      if (!review.busy) act();
    };
  }

  /** The frame of a panel: head, error, two columns that become one in a narrow panel, help; or how to begin. */
  function Frame({ review, onKeyDown, head, left, right, keys, name, start }) {
    const { data, error, busy } = review;
    const empty = data && !data.page;
    return h(
      "div",
      { className: `sfs sfs-${name}${busy ? " sfs-busy" : ""}`, ref: review.root, tabIndex: 0, onKeyDown, "data-cy": `selfsame-${name}`, "data-busy": busy },
      h("style", null, STYLE),
      error && h("div", { className: "sfs-error", role: "alert", "data-cy": "selfsame-error" }, h("span", { className: "sfs-grow" }, error), h(Button, { icon: "close", title: "Close", onClick: () => review.setError(null) })),
      !data && !error && h("div", { className: "sfs-empty" }, h("p", null, "Loading ...")),
      empty && start,
      empty && !start && h(Empty, { start: data.start, onStart: () => review.prompt(data.start.operator, {}) }),
      data && data.page && h(React.Fragment, null, h("header", { className: "sfs-row sfs-wrap sfs-top" }, head), h("div", { className: left ? "sfs-columns" : "sfs-columns sfs-whole" }, left && h("aside", { className: "sfs-side" }, left), right), keys && h(Keys, { keys }))
    );
  }

  function RunChoice({ review }) {
    const options = review.data.runs.map((run) => [run.key, run.key]);
    const choose = (key) => review.load({ key, group: null, page: 0, kind: "" });
    return h(Choice, { cy: "selfsame-run", label: "Run", value: review.data.key, options, onChange: choose });
  }

  function Filters({ review, sorts }) {
    const { saved, data } = review;
    const kinds = Object.entries(data.page.kinds).map(([kind, n]) => [kind, `${KINDS[kind] || kind} (${count(n)})`]);
    return h(
      "div",
      { className: "sfs-row sfs-wrap sfs-filters" },
      h(Choice, { cy: "selfsame-sort", label: "Order", value: saved.sort, options: sorts, onChange: (sort) => review.turn({ sort, page: 0 }) }),
      kinds.length > 1 && h(Choice, { cy: "selfsame-kind", label: "Kind", value: saved.kind || "", options: [["", "All"], ...kinds], onChange: (kind) => review.turn({ kind, page: 0 }) }),
      h(Tick, { cy: "selfsame-undecided", label: "Undecided", value: saved.undecided, onChange: (undecided) => review.turn({ undecided, page: 0 }) })
    );
  }

  const Options = ({ review }) => [
    h(Tick, { key: "follow", cy: "selfsame-follow", label: "Grid follows", title: "The grid shows the open group", value: review.saved.follow, onChange: (follow) => { review.save({ follow }); if (!follow) review.show({}); } }),
    h(Tick, { key: "advance", cy: "selfsame-advance", label: "Go on", title: "After a decision, open the next undecided group", value: review.saved.advance, onChange: (advance) => review.save({ advance }) }),
  ];

  const listRow = (review) => review.opened && review.data.page && review.data.page.groups.find((row) => row.group === review.opened.group);

  // ------------------------------------------------------------------------------------------------------ Duplicates

  /** Pairs of pictures across splits or datasets, below a table of how many there are. */
  function Leaks({ review, run }) {
    const [answer, setAnswer] = useState(null);
    const [problem, setProblem] = useState(null);
    const read = (page) => review.call("leaks", { page }).then(setAnswer, (error) => setProblem(error.message));
    useEffect(() => void read(0), [run.key, run.leaks.join()]);
    if (problem) return h("p", { className: "sfs-dim" }, problem);
    if (!answer) return h("p", { className: "sfs-dim" }, "Loading ...");
    const search = h(Button, { cy: "selfsame-find-leaks", label: answer.report ? "Search again" : "Find leaks", icon: "compare_arrows", onClick: () => review.prompt("find_leaks", { duplicates: run.key }) });
    if (!answer.report)
      return h("div", { className: "sfs-empty", "data-cy": "selfsame-leaks" }, h("p", null, "No search for leaks between splits has been run yet."), search);
    const { splits, table } = answer.report;
    const cells = (row, i) => row.map((n, j) => h("td", { key: j, className: n ? "sfs-leak" : "" }, i >= j ? "" : count(n)));
    return h(
      "main",
      { className: "sfs-stage", "data-cy": "selfsame-leaks" },
      h("div", { className: "sfs-row" }, h("b", { className: "sfs-grow" }, `${plural(answer.total, "sample")} with a counterpart elsewhere`), search),
      splits.length > 0 &&
        h(
          "table",
          null,
          h("thead", null, h("tr", null, h("th", null, ""), splits.map((name) => h("th", { key: name }, name)))),
          h("tbody", null, splits.map((name, i) => h("tr", { key: name }, h("th", null, name), cells(table[i], i))))
        ),
      h(
        "div",
        { className: "sfs-pairs" },
        answer.pairs.map(([one, other], i) =>
          h(
            "div",
            { key: i, className: "sfs-pair", "data-cy": `selfsame-leak-${i}` },
            [one, other].map((side, k) =>
              h("div", { key: k, onDoubleClick: () => side.sample_id && review.show({ sample: side.sample_id }), title: side.filepath }, h("div", { className: "sfs-picture" }, h(Thumb, { member: side })), h("span", { className: "sfs-name" }, h("b", null, side.split), ` ${fileName(side.filepath)}`))
            ),
            h("span", { className: "sfs-dim" }, fixed(one.similarity, 3))
          )
        )
      ),
      h(
        "div",
        { className: "sfs-row sfs-pager" },
        h(Button, { icon: "chevron_left", off: !answer.page, onClick: () => read(answer.page - 1) }),
        h("span", null, `${count(answer.page + 1)} / ${count(answer.pages)}`),
        h(Button, { icon: "chevron_right", off: answer.page + 1 >= answer.pages, onClick: () => read(answer.page + 1) })
      )
    );
  }

  function DuplicatesView({ schema }) {
    const review = useReview({ view: schema.view, defaults: { sort: "size", tab: "groups" } });
    const { data, saved, opened, chosen } = review;
    const members = opened ? opened.members : [];
    const shots = new Set(members.map((m) => m.shot).filter((shot) => shot !== null)).size;
    const some = chosen.length > 0;
    const part = some && chosen.length < members.length;
    const act = {
      k: () => review.decide("keep_best"),
      c: () => some && review.decide("keep_chosen", { members: chosen }),
      a: () => review.decide("keep_all"),
      s: () => shots > 1 && review.decide("keep_shots"),
      r: () => review.decide("reject"),
      x: () => part && review.decide("split", { members: chosen }, { relist: true, stay: true }),
    };
    const onKeyDown = keyHandler(review, act);
    const run = data && data.run;
    const progress = data && data.progress;
    const head = data && data.page && [
      h(RunChoice, { key: "run", review }),
      h(Progress, { key: "progress", progress }),
      h("nav", { key: "tabs", className: "sfs-tabs" }, [["groups", "Groups"], ["leaks", "Leaks"]].map(([tab, label]) => h("button", { key: tab, type: "button", "data-cy": `selfsame-tab-${tab}`, className: saved.tab === tab ? "sfs-open" : "", onClick: () => review.save({ tab }) }, label))),
      h("span", { key: "gap", className: "sfs-grow" }),
      h(Options, { key: "options", review }),
      h(Button, { key: "export", cy: "selfsame-export", label: "Export", icon: "download", title: "Write the decisions to a file, or make a cleaned copy", onClick: () => review.prompt("export_decisions", { key: data.key }) }),
      h(Button, { key: "apply", cy: "selfsame-apply", label: "Apply", icon: "delete_sweep", title: "See what would be deleted, and delete it", onClick: () => review.prompt("apply_decisions", { key: data.key }) }),
    ];
    const regroup = (threshold) => review.prompt("find_duplicates", { key: data.key, source: "pairs", threshold });
    const leaks = saved.tab === "leaks";
    const left = data && data.page && !leaks && [
      h(Threshold, { key: "threshold", run, groups: progress.groups, call: review.call, folded: saved.folded, onFold: () => review.save({ folded: !saved.folded }), onRegroup: regroup }),
      h(Filters, { key: "filters", review, sorts: [["size", "Largest"], ["risk", "Most doubtful"], ["similarity", "Least similar"]] }),
      h(GroupList, { key: "list", page: data.page, word: "group", open: opened && opened.group, onOpen: review.openGroup, onPage: (page) => review.turn({ page }) }),
    ];
    const button = (key, action, label, icon, options) => h(Button, { key, cy: `selfsame-action-${action}`, hotkey: key.toUpperCase(), label, icon, onClick: act[key], ...options });
    const actions = [
      button("k", "keep_best", "Keep best", "star", { strong: true, title: "Keep the best, drop the others" }),
      button("c", "keep_chosen", some ? `Keep ${chosen.length}` : "Keep chosen", "done_all", { off: !some, title: "Keep the selected, drop the others" }),
      button("a", "keep_all", "Keep all", "select_all", { title: "Keep every member" }),
      button("s", "keep_shots", "One per shot", "burst_mode", { off: shots < 2, title: "Keep the best of each shot, drop its copies" }),
      button("r", "reject", "Not duplicates", "block", { title: "These are not duplicates of one another" }),
      button("x", "split", "Split off", "call_split", { off: !part, title: "The selected become a group of their own" }),
    ];
    const row = listRow(review);
    const right = data && data.page && (leaks
      ? h(Leaks, { review, run })
      : h(Stage, { group: row, members, chosen, actions, words: { similarity: "least similar", risk: "risk" }, undo: h(Undo, { review }), onToggle: review.toggle, onShow: (sample) => review.show({ sample }) },
          h("b", { "data-cy": "selfsame-open-group" }, opened && members.length ? `Group ${opened.group}` : "No group"),
          row && h(Kind, { kind: row.kind })));
    const keys = [["K", "best"], ["C", "chosen"], ["A", "all"], ["S", "shots"], ["R", "not duplicates"], ["X", "split"], ["U", "undo"], ["J / P", "next, previous"], ["1–9", "select"], ["Esc", "none"]];
    // Nothing is to be decided on a group that is out of sight.
    return h(Frame, { review, onKeyDown: leaks ? undefined : onKeyDown, head, left, right, keys: leaks ? null : keys, name: "duplicates" });
  }

  // --------------------------------------------------------------------------------------------------------- Objects

  const colour = (cluster) => (cluster < 0 ? "rgba(140,140,150,0.35)" : `hsl(${(cluster * 137.508) % 360} 70% 62%)`);

  /** Up to a few thousand points on a canvas, with pan and zoom; those of the open cluster are drawn over the others. */
  function ClusterMap({ map, open, onOpen, onShow }) {
    const canvas = useRef(null);
    const [area, setArea] = useState([300, 240]);
    const [frame, setFrame] = useState({ zoom: 1, x: 0, y: 0 });
    const [hover, setHover] = useState(null);
    const drag = useRef(null);
    const bounds = useMemo(() => {
      const ends = (values) => [Math.min(...values), Math.max(...values)];
      return [ends(map.x), ends(map.y)];
    }, [map]);
    useEffect(() => {
      const observer = new ResizeObserver(([entry]) => setArea([entry.contentRect.width, entry.contentRect.height]));
      observer.observe(canvas.current.parentElement);
      return () => observer.disconnect();
    }, []);
    useEffect(() => setFrame({ zoom: 1, x: 0, y: 0 }), [map]);
    const places = useMemo(() => {
      const margin = 14;
      const put = (value, [low, high], length, flip) => {
        const share = (value - low) / (high - low || 1);
        return margin + (flip ? 1 - share : share) * (length - 2 * margin);
      };
      const zoomed = (value, middle, offset) => (value - middle) * frame.zoom + middle + offset;
      return map.x.map((x, i) => [
        zoomed(put(x, bounds[0], area[0], false), area[0] / 2, frame.x),
        zoomed(put(map.y[i], bounds[1], area[1], true), area[1] / 2, frame.y),
      ]);
    }, [map, bounds, area, frame]);
    useEffect(() => {
      const ratio = window.devicePixelRatio || 1;
      canvas.current.width = area[0] * ratio;
      canvas.current.height = area[1] * ratio;
      const pen = canvas.current.getContext("2d");
      pen.scale(ratio, ratio);
      const radius = map.x.length > 2000 ? 2 : map.x.length > 400 ? 3 : 4.5;
      places.forEach(([x, y], i) => {
        pen.globalAlpha = open === null || open === undefined ? 0.9 : 0.55;
        pen.fillStyle = colour(map.cluster[i]);
        pen.beginPath();
        pen.arc(x, y, radius, 0, 2 * Math.PI);
        pen.fill();
      });
    }, [places, open, area, map]);
    const nearest = (event) => {
      const box = canvas.current.getBoundingClientRect();
      const [px, py] = [event.clientX - box.left, event.clientY - box.top];
      let best = null;
      let least = 144;
      places.forEach(([x, y], i) => {
        const distance = (x - px) ** 2 + (y - py) ** 2;
        if (distance < least) [least, best] = [distance, i];
      });
      return best;
    };
    const click = (event) => {
      const moved = drag.current && drag.current.moved;
      drag.current = null;
      const i = moved ? null : nearest(event);
      if (i === null) return;
      if (map.cluster[i] >= 0) onOpen(map.cluster[i]);
      else onShow(map.samples[i]);
    };
    const move = (event) => {
      if (!drag.current) return setHover(nearest(event));
      const [dx, dy] = [event.clientX - drag.current.x, event.clientY - drag.current.y];
      if (Math.abs(dx) + Math.abs(dy) > 4) drag.current.moved = true;
      setFrame({ ...drag.current.frame, x: drag.current.frame.x + dx, y: drag.current.frame.y + dy });
    };
    const zoom = (by) => setFrame((f) => ({ zoom: Math.min(40, Math.max(1, f.zoom * by)), x: f.x * by, y: f.y * by }));
    const told = hover !== null && hover < map.cluster.length ? (map.cluster[hover] < 0 ? "in no cluster" : map.names[map.cluster[hover]] || `#${map.cluster[hover]}`) : null;
    const shown = places.map((place, i) => [place, i]).filter(([, i]) => map.cluster[i] === open);
    return h(
      "div",
      { className: "sfs-map", "data-cy": "selfsame-map" },
      h("canvas", { ref: canvas, style: { width: area[0], height: area[1] } }),
      h(
        "svg",
        {
          onPointerDown: (e) => (drag.current = { x: e.clientX, y: e.clientY, frame, moved: false }),
          onPointerMove: move,
          onPointerUp: click,
          onPointerLeave: () => { drag.current = null; setHover(null); },
        },
        shown.map(([[x, y], i]) => h("circle", { key: i, cx: x, cy: y, r: 6, style: { fill: colour(open) }, "data-cy": "selfsame-map-open" }))
      ),
      told && h("span", { className: "sfs-told" }, told),
      h("div", { className: "sfs-zoom" }, h(Button, { icon: "add", title: "Zoom in", onClick: () => zoom(1.5) }), h(Button, { icon: "remove", title: "Zoom out", onClick: () => zoom(1 / 1.5) }))
    );
  }

  function ObjectsView({ schema }) {
    const review = useReview({ view: schema.view, defaults: { sort: "risk", follow: true, advance: true } });
    const { data, opened, chosen, saved } = review;
    const [map, setMap] = useState(null);
    const [marked, setMarked] = useState([]);
    const [naming, setNaming] = useState(null);
    const key = data && data.key;
    const members = useMemo(() => (opened ? [...opened.members].sort((a, b) => (a.similarity === null ? 1 : a.similarity) - (b.similarity === null ? 1 : b.similarity)) : []), [opened]);
    const shownFirst = { ...review, opened: opened && { ...opened, members } };
    const drawMap = (name) => review.call(name, { key }).then(setMap, (error) => review.setError(error.message));
    const computeMap = () => {
      setMap({ ...map, text: "Computing ...", can_compute: false });
      review.guarded(() => drawMap("compute_map"));
    };
    const revision = data && data.progress && data.progress.undoable;
    useEffect(() => {
      if (key && data.page) drawMap("map");
    }, [key, revision, data && data.run && data.run.timestamp]);
    useEffect(() => setNaming(null), [opened && opened.group]);
    const part = chosen.length > 0 && chosen.length < members.length;
    const merged = opened ? [...new Set([opened.group, ...marked])] : [];
    const relist = { relist: true, stay: true };
    const act = {
      c: () => review.decide("confirm"),
      x: () => part && review.decide("split", { members: chosen }, relist),
      m: () => merged.length > 1 && review.decide("merge", { groups: merged }, relist).then(() => setMarked([])),
      r: () => review.decide("reject"),
      n: () => setNaming((opened && opened.name) || ""),
    };
    const onKeyDown = keyHandler(shownFirst, act);
    const progress = data && data.progress;
    const head = data && data.page && [
      h(RunChoice, { key: "run", review }),
      h(Progress, { key: "progress", progress }),
      h("span", { key: "gap", className: "sfs-grow" }),
      h(Options, { key: "options", review }),
      h(Button, { key: "again", cy: "selfsame-recluster", label: "Cluster again", icon: "refresh", title: "Form the clusters anew; decisions are honoured", onClick: () => review.prompt("cluster_objects", { key, patches_field: data.run.patches_field }) }),
      h(Button, { key: "export", cy: "selfsame-export", label: "Export", icon: "download", onClick: () => review.prompt("export_decisions", { key }) }),
    ];
    const left = data && data.page && [
      map && map.x.length > 0 && h("section", { key: "map", className: "sfs-card" },
        h(ClusterMap, { map, open: opened && opened.group, onOpen: review.openGroup, onShow: (sample) => review.show({ sample }) }),
        h("div", { className: "sfs-row" }, h("span", { className: "sfs-dim sfs-grow" }, map.text), map.can_compute && h(Button, { cy: "selfsame-compute-map", label: "Compute UMAP", title: "Better than the plane of largest variance; takes up to a minute", onClick: computeMap }))),
      h(Filters, { key: "filters", review, sorts: [["risk", "Likely mistakes"], ["similarity", "Least sure"], ["size", "Largest"]] }),
      h(GroupList, { key: "list", page: data.page, word: "cluster", open: opened && opened.group, marked, onMark: (group) => setMarked((all) => (all.includes(group) ? all.filter((g) => g !== group) : [...all, group])), onOpen: review.openGroup, onPage: (page) => review.turn({ page }) }),
    ];
    const button = (letter, action, label, icon, options) => h(Button, { key: letter, cy: `selfsame-action-${action}`, hotkey: letter.toUpperCase(), label, icon, onClick: act[letter], ...options });
    const actions = [
      button("c", "confirm", "Confirm", "done", { strong: true, title: "All members are the same object" }),
      button("x", "split", "Split off", "call_split", { off: !part, title: "The selected become a cluster of their own" }),
      button("m", "merge", merged.length > 1 ? `Merge ${merged.length}` : "Merge", "call_merge", { off: merged.length < 2, title: "Merge with the clusters that are ticked in the list" }),
      button("r", "reject", "Break up", "block", { title: "These are not the same object" }),
      button("n", "name", "Name", "label", { title: "Give the cluster a name" }),
    ];
    const unname = () => {
      setNaming(null);
      review.root.current.focus({ preventScroll: true });
    };
    const named = (event) => {
      event.preventDefault();
      review.decide("name", { name: naming.trim() }, relist).then(unname);
    };
    const title = naming === null
      ? h("b", { "data-cy": "selfsame-open-group" }, opened && members.length ? opened.name || `Cluster ${opened.group}` : "No cluster")
      : h("form", { onSubmit: named }, h("input", { "data-cy": "selfsame-name", className: "sfs-input", autoFocus: true, value: naming, placeholder: "Name", maxLength: 100, onChange: (e) => setNaming(e.target.value), onKeyDown: (e) => e.key === "Escape" && unname() }));
    const right = data && data.page && h(Stage, { group: listRow(review), members, chosen, actions, words: { similarity: "least sure", risk: "outlier" }, undo: h(Undo, { review }), onToggle: review.toggle, onShow: (sample) => review.show({ sample }) }, title);
    const keys = [["C", "confirm"], ["X", "split"], ["M", "merge"], ["R", "break up"], ["N", "name"], ["U", "undo"], ["J / P", "next, previous"], ["1–9", "select"], ["Esc", "none"]];
    return h(Frame, { review, onKeyDown, head, left, right, keys, name: "objects" });
  }

  // ---------------------------------------------------------------------------------------------------------- styles

  const STYLE = `
  .sfs { --line: var(--fo-palette-neutral-softBorder, #3a3a3a); --soft: var(--fo-palette-background-level1, #232323);
    --softer: var(--fo-palette-background-level2, #2c2c2c); --accent: var(--fo-palette-primary-main, #ff6d04);
    --dim: var(--fo-palette-text-secondary, #a0a0a0); --keep: #3fb66b; --drop: #e5534b; --reject: #8b8fa3;
    container-type: inline-size; display: flex; flex-direction: column; gap: 8px; height: 100%; min-height: 0; box-sizing: border-box;
    padding: 8px 10px; outline: none; color: var(--fo-palette-text-primary, #eee); font-size: 13px; line-height: 1.35; }
  .sfs *, .sfs *::before { box-sizing: border-box; }
  .sfs-busy { cursor: progress; }
  .sfs-row { display: flex; align-items: center; gap: 8px; min-width: 0; }
  .sfs-wrap { flex-wrap: wrap; row-gap: 6px; }
  .sfs-grow { flex: 1 1 auto; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
  .sfs-dim { color: var(--dim); font-size: 12px; }
  .sfs-icon { font-size: 16px !important; line-height: 1; flex: none; }
  .sfs-name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; min-width: 0; }
  .sfs kbd { font: 600 10px/1 ui-monospace, monospace; padding: 2px 4px; border: 1px solid var(--line); border-radius: 3px; color: var(--dim); background: var(--soft); }
  .sfs-button { display: inline-flex; align-items: center; gap: 5px; height: 28px; padding: 0 9px; border: 1px solid var(--line); border-radius: 5px;
    background: var(--softer); color: inherit; font: inherit; white-space: nowrap; cursor: pointer; }
  .sfs-button:hover { border-color: var(--dim); }
  .sfs-button:focus-visible, .sfs select:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
  .sfs-strong { background: var(--accent); border-color: var(--accent); color: #111; font-weight: 600; }
  .sfs-strong kbd { background: rgba(255,255,255,.25); border-color: transparent; color: #111; }
  .sfs-off { opacity: .4; cursor: default; }
  .sfs-choice, .sfs-tick { display: inline-flex; align-items: center; gap: 5px; white-space: nowrap; }
  .sfs-choice > span { color: var(--dim); font-size: 12px; }
  .sfs select, .sfs-input { height: 28px; max-width: 170px; border: 1px solid var(--line); border-radius: 5px; background: var(--softer); color: inherit; font: inherit; padding: 0 6px; }
  .sfs input[type=checkbox] { accent-color: var(--accent); margin: 0; }
  .sfs-progress { display: flex; align-items: center; gap: 7px; font-size: 12px; color: var(--dim); white-space: nowrap; }
  .sfs-bar { width: 100px; height: 6px; border-radius: 3px; background: var(--line); overflow: hidden; }
  .sfs-bar > div { height: 100%; background: var(--keep); transition: width .2s; }
  .sfs-tabs { display: inline-flex; border: 1px solid var(--line); border-radius: 5px; overflow: hidden; }
  .sfs-tabs button { height: 26px; border: 0; padding: 0 10px; background: transparent; color: var(--dim); font: inherit; cursor: pointer; }
  .sfs-tabs button.sfs-open { background: var(--softer); color: inherit; }
  .sfs-error { display: flex; align-items: center; gap: 8px; padding: 6px 10px; border-radius: 5px; border: 1px solid var(--drop); background: rgba(229,83,75,.14); }
  .sfs-error .sfs-grow { white-space: normal; }
  .sfs-empty { display: flex; flex-direction: column; align-items: center; justify-content: center; gap: 10px; flex: 1; min-height: 200px; text-align: center; color: var(--dim); }
  .sfs-empty > .sfs-icon { font-size: 44px !important; opacity: .5; }
  .sfs-columns { display: grid; grid-template-columns: minmax(250px, 300px) minmax(0, 1fr); gap: 12px; flex: 1; min-height: 0; }
  .sfs-whole { grid-template-columns: minmax(0, 1fr); }
  .sfs-side { display: flex; flex-direction: column; gap: 8px; min-height: 0; min-width: 0; }
  .sfs-card { display: flex; flex-direction: column; gap: 5px; padding: 8px 10px; border: 1px solid var(--line); border-radius: 6px; background: var(--soft); flex: none; }
  .sfs-plot { position: relative; height: 92px; cursor: ew-resize; touch-action: none; user-select: none; }
  .sfs-plot svg { width: 100%; height: 100%; display: block; overflow: hidden; }
  .sfs-linked { fill: var(--accent); } .sfs-unlinked { fill: var(--dim); opacity: .55; }
  .sfs-unkept { fill: var(--fo-palette-background-body, #000); opacity: .45; }
  .sfs-threshold { position: absolute; top: -3px; bottom: 0; width: 2px; margin-left: -1px; background: var(--fo-palette-text-primary, #fff); outline: none; }
  .sfs-threshold span { position: absolute; top: 0; left: -5px; width: 12px; height: 12px; border-radius: 50%; background: inherit; box-shadow: 0 0 0 2px var(--soft); }
  .sfs-threshold:focus-visible span { box-shadow: 0 0 0 3px var(--accent); }
  .sfs-axis { display: flex; justify-content: space-between; color: var(--dim); font-size: 11px; }
  .sfs-card .sfs-button { height: 24px; } .sfs-counts { font-variant-numeric: tabular-nums; font-size: 12px; }
  .sfs-list { display: flex; flex-direction: column; gap: 6px; overflow: auto; min-height: 0; flex: 1; }
  .sfs-entry { flex: none; padding: 5px; border: 1px solid var(--line); border-radius: 6px; background: var(--soft); cursor: pointer; }
  .sfs-entry:hover { border-color: var(--dim); }
  .sfs-entry.sfs-open { border-color: var(--accent); box-shadow: inset 0 0 0 1px var(--accent); }
  .sfs-entry.sfs-decided .sfs-strip { opacity: .45; }
  .sfs-strip { display: grid; grid-template-columns: repeat(4, 1fr); gap: 3px; }
  .sfs-strip > div { aspect-ratio: 1; border-radius: 3px; overflow: hidden; background: #111; }
  .sfs-strip img, .sfs-strip svg, .sfs-picture img, .sfs-picture svg { width: 100%; height: 100%; display: block; }
  .sfs-facts { display: flex; align-items: center; gap: 6px; padding-top: 4px; font-size: 12px; min-width: 0; }
  .sfs-facts > .sfs-name { flex: 0 1 auto; min-width: 22px; } .sfs-size { white-space: nowrap; }
  .sfs-facts > .sfs-icon { color: var(--keep); }
  .sfs-kind { padding: 1px 6px; border-radius: 9px; font-size: 11px; background: var(--softer); border: 1px solid var(--line);
    white-space: nowrap; min-width: 0; overflow: hidden; text-overflow: ellipsis; color: color-mix(in srgb, var(--hue, var(--dim)) 65%, var(--fo-palette-text-primary, #eee)); }
  .sfs-kind-exact { --hue: #3d9bff; } .sfs-kind-near { --hue: #2fc77a; } .sfs-kind-same_object { --hue: #e89a1a; }
  .sfs-risk { width: 28px; height: 5px; border-radius: 3px; background: var(--softer); overflow: hidden; flex: none; }
  .sfs-risk i { display: block; height: 100%; background: #e8b45a; }
  .sfs-pager { flex: none; font-size: 12px; } .sfs-pager .sfs-button { padding: 0 4px; height: 24px; }
  .sfs-actions { position: sticky; top: 0; z-index: 2; padding: 4px 0; background: var(--fo-palette-background-mediaSpace, #1a1a1a); }
  .sfs-stage { display: flex; flex-direction: column; gap: 8px; min-width: 0; min-height: 0; overflow: auto; padding-right: 2px; }
  .sfs-head { min-height: 28px; font-size: 14px; }
  .sfs-tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(max(130px, min(var(--sfs-tile), 45cqw)), 1fr)); gap: 8px; align-content: start; }
  .sfs-tile { border: 2px solid transparent; border-radius: 7px; background: var(--soft); overflow: hidden; cursor: pointer; }
  .sfs-tile:hover { border-color: var(--line); }
  .sfs-is-keep, .sfs-is-confirm { border-color: var(--keep); } .sfs-is-drop { border-color: var(--drop); } .sfs-is-reject { border-color: var(--reject); }
  .sfs-is-drop .sfs-picture img, .sfs-is-drop .sfs-picture svg { opacity: .5; }
  .sfs-tile.sfs-chosen { border-color: var(--accent); }
  .sfs-picture { position: relative; aspect-ratio: 4 / 3; background: #0c0c0c; overflow: hidden; }
  .sfs-picture > kbd { position: absolute; left: 5px; top: 5px; }
  .sfs-picture > span { position: absolute; display: inline-flex; align-items: center; gap: 2px; padding: 1px 6px; border-radius: 9px; font-size: 11px; font-weight: 600; color: #111; }
  .sfs-keeper { right: 5px; top: 5px; background: #f2c94c; } .sfs-keeper .sfs-icon { font-size: 12px !important; }
  .sfs-decision { left: 5px; bottom: 5px; background: var(--reject); }
  .sfs-is-keep .sfs-decision, .sfs-is-confirm .sfs-decision { background: var(--keep); } .sfs-is-drop .sfs-decision { background: var(--drop); }
  .sfs-check { right: 5px; bottom: 5px; background: var(--accent); }
  .sfs-box { fill: none; stroke: var(--accent); stroke-width: 2px; vector-effect: non-scaling-stroke; }
  .sfs-caption { padding: 5px 7px 6px; display: flex; flex-direction: column; gap: 1px; font-size: 12px; }
  .sfs-caption .sfs-dim { display: flex; gap: 9px; font-variant-numeric: tabular-nums; }
  .sfs-broken { width: 100%; height: 100%; display: grid; place-items: center; color: var(--dim); }
  .sfs-keys { position: relative; display: flex; flex-wrap: wrap; gap: 3px 11px; color: var(--dim); font-size: 11px; flex: none; opacity: .55; }
  .sfs-keys > span { display: inline-flex; gap: 4px; align-items: center; }
  .sfs:focus-within .sfs-keys { opacity: 1; } .sfs:focus-within .sfs-sleeping { display: none; }
  .sfs-sleeping { position: absolute; right: 0; bottom: 0; padding: 1px 8px; border-radius: 4px; background: var(--softer); }
  .sfs table { border-collapse: collapse; font-size: 12px; width: max-content; max-width: 100%; }
  .sfs th, .sfs td { padding: 4px 10px; border: 1px solid var(--line); text-align: right; } .sfs th { color: var(--dim); font-weight: 500; }
  .sfs-leak { color: var(--drop); font-weight: 600; }
  .sfs-pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 260px), 1fr)); gap: 8px; }
  .sfs-pair { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; padding: 5px; border: 1px solid var(--line); border-radius: 6px; background: var(--soft); font-size: 12px; }
  .sfs-pair > div { min-width: 0; display: flex; flex-direction: column; }
  .sfs-strip.sfs-two { grid-template-columns: 1fr 1fr; } .sfs-two > div { aspect-ratio: 4 / 3; }
  .sfs-two + .sfs-facts .sfs-kind { flex: none; } .sfs-verdict-match { --hue: #2fc77a; } .sfs-verdict-no_match { --hue: #e5534b; } .sfs-verdict-failed { --hue: #e89a1a; }
  .sfs-said-accept { color: var(--keep); } .sfs-said-reject { color: var(--drop); }
  .sfs-canvas { width: 100%; flex: none; } .sfs-canvas svg { display: block; user-select: none; }
  .sfs-dimmed { fill: #000; opacity: .68; pointer-events: none; }
  .sfs-line line { stroke: var(--tone); stroke-width: 1.6; } .sfs-line circle { fill: var(--tone); stroke: #111; stroke-width: 1; }
  .sfs-line .sfs-reach { stroke: transparent; stroke-width: 10; } .sfs-line.sfs-lit line:not(.sfs-reach) { stroke-width: 3.2; } .sfs-line.sfs-faint { opacity: .22; }
  .sfs-lines { max-height: 260px; overflow: auto; flex: none; } .sfs-lines tr { outline: none; } .sfs-lines tr.sfs-lit td { background: var(--softer); color: var(--fo-palette-text-primary, #fff); }
  .sfs-swatch { display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 6px; }
  .sfs-scale { display: inline-block; width: 60px; height: 6px; border-radius: 3px; background: linear-gradient(90deg, hsl(8 85% 52%), hsl(74 85% 52%), hsl(140 85% 52%)); }
  .sfs-map { position: relative; height: 230px; } .sfs-map canvas, .sfs-map > svg { position: absolute; inset: 0; width: 100%; height: 100%; touch-action: none; }
  .sfs-map circle { stroke: #fff; stroke-width: 1.5; pointer-events: none; }
  .sfs-told { position: absolute; left: 6px; top: 4px; padding: 1px 6px; border-radius: 4px; background: var(--softer); font-size: 11px; pointer-events: none; }
  .sfs-zoom { position: absolute; right: 0; top: 0; display: flex; gap: 3px; } .sfs-zoom .sfs-button { height: 22px; padding: 0 3px; }
  @container (max-width: 699px) {
    .sfs-columns { display: flex; flex-direction: column; overflow: auto; }
    .sfs-side { flex: none; } .sfs-stage { overflow: visible; flex: none; }
    .sfs-plot { height: 64px; } .sfs-map { height: 190px; }
    .sfs-list { flex-direction: row; overflow: auto hidden; flex: none; padding-bottom: 4px; } .sfs-entry { width: 200px; }
  }
  @container (max-width: 519px) { .sfs-top .sfs-button span:not(.sfs-icon) { display: none; } .sfs-bar { width: 60px; } .sfs-actions { gap: 5px; } .sfs-actions .sfs-button { padding: 0 7px; } }
  @container (max-width: 379px) {
    .sfs-actions .sfs-button span:not(.sfs-icon), .sfs-head .sfs-button span:not(.sfs-icon), .sfs-actions kbd, .sfs-keys { display: none; }
    .sfs-axis span:nth-child(2) { display: none; }
  }
  `;

  // --------------------------------------------------------------------------------------------------- registration

  const loaded = new Map();

  /** Runs a file beside this one, once; it puts its views into `window.__selfsame__.views`. */
  function loadFile(file) {
    if (!loaded.has(file)) {
      const started = new Promise((resolve, reject) => {
        const script = document.createElement("script");
        const address = new URL(file, ADDRESS);
        address.search = new URL(ADDRESS).search;
        script.src = address.href;
        script.onload = resolve;
        script.onerror = () => reject(new Error(`${address.pathname} cannot be loaded; reload the page`));
        document.head.append(script);
      });
      started.catch(() => loaded.delete(file));
      loaded.set(file, started);
    }
    return loaded.get(file);
  }

  /** A view that is in the last of some other files, each of which builds upon those before it. */
  function fromFiles(files, name) {
    const loadAll = () => files.reduce((before, file) => before.then(() => loadFile(file)), Promise.resolve());
    return function Loaded(props) {
      const [problem, setProblem] = useState(null);
      const [ready, setReady] = useState(Boolean(shared.views[name]));
      useEffect(() => {
        if (!ready) loadAll().then(() => setReady(true), (error) => setProblem(error.message));
      }, []);
      return ready ? h(shared.views[name], props) : h("div", { style: { padding: 16 } }, problem || "Loading ...");
    };
  }

  const shared = { h, useCall, useGuard, useSaved, useNaturalSize, keyHandler, source, count, plural, fixed, fileName };
  Object.assign(shared, { Button, Choice, Frame, Icon, Pager, RunChoice, Thumb, Tick, Undo, views: {} });
  window.__selfsame__ = shared;

  const views = {
    SelfsameDuplicates: DuplicatesView,
    SelfsameObjects: ObjectsView,
    SelfsameMatching: fromFiles(["pairs.js"], "Matching"),
    SelfsameCorrespondences: fromFiles(["pairs.js", "correspondences.js"], "Correspondences"),
  };
  for (const [name, component] of Object.entries(views))
    window.__fop__.registerComponent({ name, label: name, component, type: window.__fop__.PluginComponentType.Component, activator: () => true });
})();
