/**
 * Replays a recording: each component that we have is built from the production code and lives through its part of the case
 * alone, with all others played back. Time stands still between the events of the recording.
 */
import { fromJson, isMessage, toJson } from "@bufbuild/protobuf";
import type { Message } from "@bufbuild/protobuf";
import { createBench } from "./bench.ts";
import type { Bench } from "./bench.ts";
import { settleDifferences } from "./differences.ts";
import { localise } from "./answers.ts";
import { createIncoming } from "./incoming.ts";
import type { Incoming } from "./incoming.ts";
import { differencesOf } from "./compare.ts";
import {
  asStream,
  failureLines,
  inOrder,
  isFunction,
  settled,
  settledWithin,
  textOfMessage,
} from "./outcome.ts";
import { pathDifferences } from "./metadata.ts";
import { normalResponse } from "./normalise.ts";
import { createPlayback } from "./playback.ts";
import type { Playback } from "./playback.ts";
import { methodOf, requestOf, responsesOf, timeOf } from "./recording.ts";
import type { RecordedCall, RecordedCase, RecordedComponent, RecordedStep } from "./recording.ts";
import { createReport } from "./report.ts";
import type { Report } from "./report.ts";
import type { Running, Start } from "./roles.ts";
import { withoutRefreshes } from "./streams.ts";

/** Longest that our code may think about one call; nobody makes it wait. */
const PATIENCE_MS = 5000;
/** Of 10 ms each, by both clocks. */
const PATIENT_STEPS = 40;

interface Stream {
  readonly call: RecordedCall;
  readonly incoming: Incoming;
  readonly messages: Message[];
  readonly done: Promise<unknown>;
}

/** Something that happens to the component, at a position of the recording. */
interface Event {
  readonly at: number;
  readonly run: () => Promise<void> | void;
}

/** Replays one component of the case into `report`. */
export async function replayComponent(
  recorded: RecordedCase,
  component: RecordedComponent,
  start: Start,
  report: Report = createReport(),
): Promise<Report> {
  const bench = await createBench(recorded, component, report);
  const playback = createPlayback(bench);
  await using running = start(bench, playback);
  const life = new Life(bench, playback, running);
  const events = life.events().toSorted((a, b) => a.at - b.at);
  for (const { at, run } of events) {
    await bench.clock.advance(Math.max(0, timeOf(recorded, at) - bench.clock.now()));
    playback.pass(at);
    await settled();
    await run();
    await settled();
  }
  await bench.clock.advance(Math.max(0, Date.parse(recorded.endedAt) - bench.clock.now()));
  await life.end();
  playback.stop();
  settleDifferences(recorded, component.name, report);
  return report;
}

class Life {
  readonly #bench: Bench;
  readonly #playback: Playback;
  readonly #running: Running;
  readonly #streams = new Map<RecordedCall, Stream>();

  constructor(bench: Bench, playback: Playback, running: Running) {
    this.#bench = bench;
    this.#playback = playback;
    this.#running = running;
  }

  events(): Event[] {
    const { recorded, component } = this.#bench;
    const served = recorded.calls.filter((call) => call.server === component.name);
    const made = recorded.calls.filter((call) => call.client === component.name);
    const steps = recorded.steps.filter((step) => step.component === component.name);
    return [
      ...served.flatMap((call) => this.#served(call)),
      ...made.flatMap((call) => this.#made(call)),
      ...steps.map((step) => this.#step(step, made)),
      ...recorded.steps.filter((step) => step.do === "killed").map((step) => this.#death(step)),
    ];
  }

  /** Ends what is open and notes what ours has not done. */
  async end(): Promise<void> {
    for (const call of this.#streams.keys()) await this.#endStream(call);
    const { component, report } = this.#bench;
    for (const call of this.#playback.unsent())
      if (this.#running.isByHand?.(call) !== true)
        report.add({ component: component.name, call, lines: ["ours does not send it"] });
  }

  /** A step is taken at the time of the first call that came of it. */
  #step(step: RecordedStep, made: readonly RecordedCall[]): Event {
    const first = made.find(({ begin }) => begin >= step.at && begin <= (step.done ?? Infinity));
    return { at: first === undefined ? step.at : first.begin - 0.5, run: () => this.#running.step?.(step) };
  }

  /** A killed process says nothing more, and nobody hears from it. */
  #death({ at, component }: RecordedStep): Event {
    const isOurs = component === this.#bench.component.name;
    return { at, run: () => (isOurs ? this.#playback.stop() : this.#playback.kill(component)) };
  }

  #served(call: RecordedCall): Event[] {
    if (!methodOf(call).isStream) return [{ at: call.begin, run: () => this.#answer(call) }];
    const opened: Event = { at: call.begin, run: () => this.#openStream(call) };
    return call.end === undefined ? [opened] : [opened, { at: call.end, run: () => this.#endStream(call) }];
  }

  /** Time passes up to each call that the recorded component made, and streams that it had opened bring their messages. */
  #made(call: RecordedCall): Event[] {
    const due: Event = { at: call.begin, run: () => this.#untilSent(call) };
    if (!call.method.endsWith("/MonitorConnections")) return [due];
    const messages = call.responses.map(({ at }, i): Event => ({
      at,
      run: () => this.#playback.deliver(call, i),
    }));
    return [due, ...messages];
  }

  /** What the recorded component did by itself, ours does at about the same time; its pauses between two tries are real. */
  async #untilSent(call: RecordedCall): Promise<void> {
    const { recorded, component, clock } = this.#bench;
    const isAnswering = recorded.calls.some(
      (served) =>
        served.server === component.name &&
        !methodOf(served).isStream &&
        served.begin < call.begin &&
        call.begin < (served.end ?? Infinity),
    );
    if (isAnswering || this.#running.isByHand?.(call) === true) return;
    for (let i = 0; i < PATIENT_STEPS && this.#playback.unsent().includes(call); i++) {
      await clock.advance(10);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async #answer(call: RecordedCall): Promise<void> {
    const incoming = createIncoming(this.#bench, call);
    const { report, component } = this.#bench;
    report.count(`${component.role} served ${methodOf(call).name}`, call);
    const handled = this.#playback.during(
      call,
      async () => await this.#handler(call)(this.#request(call), incoming.caller),
    );
    const outcome = await settledWithin(handled, PATIENCE_MS);
    const lines =
      "error" in outcome
        ? failureLines(outcome.error, call)
        : this.#answerLines(call, outcome.value, incoming);
    report.add({
      component: component.name,
      call,
      lines: [...lines, ...(this.#running.after?.(call, !("error" in outcome)) ?? [])],
    });
  }

  #answerLines(call: RecordedCall, answer: unknown, incoming: Incoming): readonly string[] {
    if (call.status?.code !== 0) return [`ours succeeds, recorded is ${JSON.stringify(call.status)}`];
    const [recorded] = responsesOf(call);
    if (recorded === undefined) return ["the recording has no answer"];
    return [
      ...this.#messageLines(call, answer, recorded),
      ...pathDifferences(incoming.header["path"], call.header?.["path"]?.at(-1), this.#bench.subject),
    ];
  }

  #messageLines(call: RecordedCall, ours: unknown, recorded: Message): string[] {
    const { output } = methodOf(call);
    if (!isMessage(ours, output)) return [`ours answers with ${String(ours)}`];
    return differencesOf(
      normalResponse(this.#bench, call, toJson(output, ours), "ours"),
      normalResponse(this.#bench, call, toJson(output, recorded), "recorded"),
      this.#bench.subject,
    );
  }

  #openStream(call: RecordedCall): void {
    const incoming = createIncoming(this.#bench, call);
    const messages: Message[] = [];
    const read = async () => {
      const answers = await this.#handler(call)(this.#request(call), incoming.caller);
      for await (const message of asStream(answers)) messages.push(message);
    };
    const done = settledWithin(read(), undefined);
    this.#streams.set(call, { call, incoming, messages, done });
  }

  async #endStream(call: RecordedCall): Promise<void> {
    const stream = this.#streams.get(call);
    if (stream === undefined) return;
    this.#streams.delete(call);
    await settled();
    stream.incoming.leave();
    await stream.done;
    const { report, component } = this.#bench;
    report.count(`${component.role} served ${methodOf(call).name}`, call);
    report.add({
      component: component.name,
      call,
      lines: this.#streamLines(call, inOrder(call, stream.messages)),
    });
  }

  #streamLines(call: RecordedCall, ours: readonly Message[]): string[] {
    const recorded = inOrder(call, withoutRefreshes(responsesOf(call)));
    const missing = recorded
      .slice(ours.length)
      .map((_, i) => `ours does not send message ${ours.length + i}`);
    const differing = ours.flatMap((message, i) => {
      const match = recorded[i];
      if (match !== undefined)
        return this.#messageLines(call, message, match).map((line) => `message ${i} ${line}`);
      return [`message ${i} of ours is not recorded: ${textOfMessage(call, message)}`];
    });
    return [...missing, ...differing];
  }

  #request(call: RecordedCall): Message {
    const { input } = methodOf(call);
    const json = localise(this.#bench, toJson(input, requestOf(call)));
    return fromJson(input, this.#running.incoming?.(call, json) ?? json);
  }

  #handler(call: RecordedCall): (request: Message, caller: unknown) => unknown {
    const { service, name } = methodOf(call);
    const handler = this.#running.handlers.get(service)?.[name];
    if (!isFunction(handler)) throw new Error(`${this.#bench.component.role} does not serve ${call.method}`);
    return handler;
  }
}
