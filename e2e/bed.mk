# The bed's verbs, included by the Makefile.
.PHONY: run stop kubectl bench bed status conformance critest crictl soak

CLUSTER ?= lighter
NODES ?= 1
BED := $(TARGET_DIR)/$(HOST)/$(PROFILE)/bed

bed:
	@cargo build --quiet --workspace --bins --profile $(PROFILE)

run: ## A real control plane, one Lighter node, the demo on it (NODES=2, CLUSTER=name)
	@start=$$SECONDS; cargo build --workspace --bins --profile $(PROFILE) \
	    && echo "built lighter and the bed in $$((SECONDS - start)) s" \
	    && $(BED) up --again --name $(CLUSTER) --nodes $(NODES) --lighter $(LIGHTER) \
	    && $(BED) demo --name $(CLUSTER)

stop: bed ## End the cluster of make run; nothing of it stays
	@$(BED) down --name $(CLUSTER)

status: bed ## What is up
	@$(BED) status

kubectl: bed ## kubectl in the cluster of make run (ARGS="get pods -A")
	@$(BED) kubectl --name $(CLUSTER) -- $(ARGS)

bench: ## Lighter beside kubelet + containerd + runc, in one run: table and JSON (PART=node|cri|density|requests)
	@cargo build --workspace --bins --profile $(PROFILE)
	@$(BED) bench --lighter $(LIGHTER) $(if $(PART),--part $(PART))

# NODES has a default for make run; here the group knows how many it needs.
conformance: ## Kubernetes' conformance specs (GROUP=node|full|storage|sig-node FOCUS= SKIP= NODES= PARALLEL= CONTROL=1 AGAIN=1 KEEP=1)
	@cargo build --workspace --bins --profile $(PROFILE)
	@$(BED) conformance --lighter $(LIGHTER) $(if $(GROUP),--group $(GROUP)) \
	    $(if $(FOCUS),--focus '$(FOCUS)') $(if $(SKIP),--skip '$(SKIP)') \
	    $(if $(filter command environment,$(origin NODES)),--nodes $(NODES)) \
	    $(if $(PARALLEL),--parallel $(PARALLEL)) $(if $(CONTROL),--control) \
	    $(if $(AGAIN),--again) $(if $(KEEP),--keep)

# Names of the passes that the variables ask for; all of them when none does.
critest_rounds = $(if $(PRIVATE),private) $(if $(WEBSOCKET),websocket) \
    $(if $(FOCUS)$(SKIP),$(if $(PRIVATE)$(WEBSOCKET),,shared))

critest: ## Validate the CRI runtime (FOCUS= SKIP= WEBSOCKET=1 PRIVATE=1 SEED= NODE=stock NEWER=1 BENCH=1)
	@cargo build --workspace --bins --profile $(PROFILE)
	@$(BED) critest --lighter $(LIGHTER) --node $(or $(NODE),lighter) \
	    $(if $(FOCUS),--focus '$(FOCUS)') $(if $(SKIP),--skip '$(SKIP)') $(if $(SEED),--seed $(SEED)) \
	    $(patsubst %,--round %,$(critest_rounds)) $(if $(NEWER),--newer) $(if $(BENCH),--bench)

soak: ## 1,000 kills, one before each step of each verb, 10,000 pods (KILLS= STEPS= CHURN= SEED=)
	@cargo build --workspace --bins --profile $(PROFILE)
	@$(BED) soak --lighter $(LIGHTER) $(if $(KILLS),--kills $(KILLS)) $(if $(CHURN),--churn $(CHURN)) $(if $(STEPS),--steps $(STEPS)) \
	    $(if $(SEED),--seed $(SEED))

crictl: ## Every crictl command against the CRI runtime (ARGS=case NODE=stock)
	@NODE=$(or $(NODE),lighter) cargo test --quiet --workspace --profile $(PROFILE) --test crictl -- --ignored $(ARGS)
